PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE numbering (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    -- The subnet that the guests have their addresses from.
    subnet TEXT NOT NULL,
    -- The highest slot given out so far. It never goes down.
    counter INTEGER NOT NULL CHECK (counter >= 0)
) STRICT;
INSERT INTO numbering VALUES(1,'10.100.0.0/16',5);
CREATE TABLE guests (
    name TEXT PRIMARY KEY NOT NULL,
    kind TEXT NOT NULL,
    -- A slot belongs to one guest, whatever the code believes.
    slot INTEGER NOT NULL UNIQUE,
    want TEXT NOT NULL,
    source TEXT NOT NULL,
    closure TEXT,
    limits TEXT NOT NULL,
    ssh_host_key TEXT,
    fault TEXT,
    created_at INTEGER NOT NULL
) STRICT;
INSERT INTO guests VALUES('web','agent',2,'running','{"flake":"/srv/fleet#agent"}','/nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-guest','{"memory":"512M","cpus":"1.5","tasks":512}','ssh-ed25519 AAAA',NULL,1795168800000001);
INSERT INTO guests VALUES('broken','preview',5,'absent','{"path":"/nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-guest"}',NULL,'{"memory":"4G","cpus":"2","tasks":4096}',NULL,'{"code":"rootfs_failed","message":"cannot remove it"}',1795168800000002);
CREATE TABLE freed_slots (
    slot INTEGER PRIMARY KEY NOT NULL,
    freed INTEGER NOT NULL UNIQUE CHECK (freed > 0)
) STRICT;
INSERT INTO freed_slots VALUES(1,7);
INSERT INTO freed_slots VALUES(4,8);
CREATE TABLE legacy_slots (
    slot INTEGER NOT NULL,
    source TEXT NOT NULL,
    PRIMARY KEY (slot, source)
) STRICT, WITHOUT ROWID;
INSERT INTO legacy_slots VALUES(3,'/var/lib/claude-agents/old');
CREATE TABLE operations (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    guest TEXT,
    verb TEXT NOT NULL,
    state TEXT NOT NULL,
    actor TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    finished_at INTEGER,
    failure TEXT,
    CHECK ((state = 'running') = (finished_at IS NULL)),
    CHECK ((state = 'failed') = (failure IS NOT NULL))
) STRICT;
INSERT INTO operations VALUES(2,'web','create','done','uid:0',1795168800000001,1795168801000000,NULL);
INSERT INTO operations VALUES(3,'broken','create','failed','uid:1000',1795168800000002,1795168801000000,'{"code":"guest_busy","message":"superseded by operation 4 (destroy)"}');
INSERT INTO operations VALUES(4,'broken','destroy','running','uid:1000',1795168802000000,NULL,NULL);
CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    time INTEGER NOT NULL,
    operation INTEGER,
    guest TEXT,
    kind TEXT NOT NULL
) STRICT;
INSERT INTO events VALUES(11,1795168800000001,2,'web','{"event":"accepted","verb":"create"}');
INSERT INTO events VALUES(12,1795168800500000,2,'web','{"event":"step_done","step":"ensure-rootfs","micros":42}');
INSERT INTO events VALUES(13,1795168801000000,2,'web','{"event":"finished"}');
CREATE TABLE closures (
    installable TEXT PRIMARY KEY NOT NULL,
    closure TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    built_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO closures VALUES('/srv/fleet#agent','/nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-guest','sha256-abc',1795168700000000);
DELETE FROM sqlite_sequence;
INSERT INTO sqlite_sequence VALUES('operations',4);
INSERT INTO sqlite_sequence VALUES('events',13);
CREATE UNIQUE INDEX running_operations ON operations (guest) WHERE state = 'running';
CREATE INDEX events_of_operation ON events (operation, seq) WHERE operation IS NOT NULL;
CREATE INDEX events_of_guest ON events (guest, seq) WHERE guest IS NOT NULL;
PRAGMA application_id = 1231973995;
PRAGMA user_version = 1;
COMMIT;
