-- How long daemons have run with this file, in microseconds: the clock for everything that expires by age. One row.
CREATE TABLE running_time (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    micros INTEGER NOT NULL CHECK (micros >= 0)
) STRICT;
INSERT INTO running_time VALUES (1, 0);
