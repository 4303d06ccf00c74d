-- The number of consecutive slots of a guest: one for each 65536 user ids. Guests from before have one.
ALTER TABLE guests ADD COLUMN slots INTEGER NOT NULL DEFAULT 1 CHECK (slots > 0);

-- A slot belongs to one guest, whatever the code believes.
CREATE TRIGGER slots_are_disjoint BEFORE INSERT ON guests
WHEN EXISTS (SELECT 1 FROM guests WHERE slot < NEW.slot + NEW.slots AND NEW.slot < slot + slots)
BEGIN
    SELECT RAISE(ABORT, 'a slot of the guest is another guest''s');
END;
CREATE TRIGGER slots_do_not_change BEFORE UPDATE OF slot, slots ON guests
BEGIN
    SELECT RAISE(ABORT, 'the slots of a guest do not change');
END;
