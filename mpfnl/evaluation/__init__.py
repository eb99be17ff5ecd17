"""A cohort, models and metrics joined: the tables and figures that say what enhancement does."""
