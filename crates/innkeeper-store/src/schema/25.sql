-- Seats: guests without a name that wait at their doors. `guest` has taken the seat, and objects of it may still have the seat's name.
CREATE TABLE seats (
    slot INTEGER PRIMARY KEY CHECK (slot > 0),
    ready INTEGER NOT NULL DEFAULT 0,
    guest TEXT UNIQUE REFERENCES guests (name) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
) STRICT;
