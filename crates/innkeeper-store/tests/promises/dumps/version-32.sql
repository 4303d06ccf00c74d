PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE numbering (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    -- The subnet that the guests have their addresses from.
    subnet TEXT NOT NULL,
    -- The highest slot given out so far. It never goes down.
    counter INTEGER NOT NULL CHECK (counter >= 0)
) STRICT;
INSERT INTO numbering VALUES(1,'10.100.0.0/16',7);
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
, file_work TEXT, retain INTEGER, slots INTEGER NOT NULL DEFAULT 1 CHECK (slots > 0), closure_change TEXT, last_change TEXT, declared INTEGER NOT NULL DEFAULT 0 CHECK (declared IN (0, 1)), level TEXT NOT NULL DEFAULT 'awake', own_system TEXT, wake_failure TEXT, idle_policy TEXT, awake_until_running INTEGER, owner TEXT) STRICT;
INSERT INTO guests VALUES('web','agent',2,'running','{"flake":"/srv/fleet#agent"}','/nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-guest','{"memory":"512M","cpus":"1.5","tasks":512}','ssh-ed25519 AAAA',NULL,1795168800000001,'{"restore":"before-upgrade"}',NULL,1,'{"operation":5,"phase":"boot","other":{"source":{"path":"/nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-guest"},"closure":"/nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-guest","limits":{"memory":"512M","cpus":"1.5","tasks":512}},"restart":false,"outcome":"restarted"}','{"operation":4,"closure":"/nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-guest","outcome":"switched","at":"2026-11-20T10:00:00Z"}',1,'paused',NULL,NULL,'pause',3600000000000,'token:2');
INSERT INTO guests VALUES('broken','preview',5,'absent','{"path":"/nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-guest"}',NULL,'{"memory":"4G","cpus":"2","tasks":4096}',NULL,'{"code":"rootfs_failed","message":"cannot remove it"}',1795168800000002,NULL,5,1,NULL,NULL,0,'awake',NULL,NULL,NULL,NULL,NULL);
INSERT INTO guests VALUES('wide','agent',6,'running','{"flake":"/srv/fleet#agent"}','/nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-guest','{"memory":"4G","cpus":"2","tasks":4096,"user_ids":131072,"nesting":true}',NULL,NULL,1795168800000001,NULL,NULL,2,NULL,NULL,0,'asleep','{"system":"/nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-own","state":"failed","failure":{"code":"guest_unhealthy","message":"its init has exited"},"since":"2026-11-20T10:00:00Z","at":"2026-11-20T11:00:00Z"}','{"code":"rootfs_failed","message":"its file tree is gone"}',NULL,NULL,NULL);
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
    failure TEXT, rollback TEXT,
    CHECK ((state = 'running') = (finished_at IS NULL)),
    CHECK ((state = 'failed') = (failure IS NOT NULL))
) STRICT;
INSERT INTO operations VALUES(2,'web','create','done','uid:0',1795168800000001,1795168801000000,NULL,NULL);
INSERT INTO operations VALUES(3,'broken','create','failed','uid:1000',1795168800000002,1795168801000000,'{"code":"guest_busy","message":"superseded by operation 4 (destroy)"}',NULL);
INSERT INTO operations VALUES(4,'broken','destroy','running','uid:1000',1795168802000000,NULL,NULL,NULL);
INSERT INTO operations VALUES(5,NULL,'purge','running','innkeeperd',1795168803000000,NULL,NULL,'{"code":"internal","message":"it is undone"}');
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
CREATE TABLE deliveries (
    -- The order of arrival. A number is never used again, also when old rows have gone.
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    -- X-GitHub-Delivery. A delivery is acted on once, whatever the code believes.
    id TEXT NOT NULL UNIQUE,
    -- GitHub compares names of repositories without case.
    repo TEXT NOT NULL COLLATE NOCASE,
    number INTEGER NOT NULL,
    -- What it says of the preview as a whole: 'present', 'absent', or nothing.
    intent TEXT,
    event TEXT NOT NULL,
    received_at INTEGER NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    not_before INTEGER,
    failure TEXT,
    finished_at INTEGER, finished_running INTEGER, comment INTEGER,
    CHECK ((state = 'pending') = (finished_at IS NULL)),
    CHECK (state <> 'failed' OR failure IS NOT NULL)
) STRICT;
INSERT INTO deliveries VALUES(1,'72d3162e-cc78-11e3-81ab-4c9367dc0958','octo/web',7,'present','{"delivery":"72d3162e-cc78-11e3-81ab-4c9367dc0958","action":"opened","pull_request":{"repo":"octo/web","number":7},"head_repo":"octo/web","head_sha":"0000000000000000000000000000000000000001","head_branch":"topic","base_branch":"main","is_fork":false,"author":"alice","sender":"alice","title_changed":false,"body_changed":false,"base_changed":false,"merged":false}',1795255200000000,'superseded',0,NULL,NULL,1795225015662277,93784000000,NULL);
INSERT INTO deliveries VALUES(2,'72d3162e-cc78-11e3-81ab-4c9367dc0959','octo/web',7,'present','{"delivery":"72d3162e-cc78-11e3-81ab-4c9367dc0959","action":"synchronize","pull_request":{"repo":"octo/web","number":7},"head_repo":"octo/web","head_sha":"0000000000000000000000000000000000000002","head_branch":"topic","base_branch":"main","is_fork":false,"author":"alice","sender":"alice","title_changed":false,"body_changed":false,"base_changed":false,"merged":false}',1795255200000000,'done',1,NULL,NULL,1795225015665139,93784000000,NULL);
INSERT INTO deliveries VALUES(3,'72d3162e-cc78-11e3-81ab-4c9367dc0960','octo/web',7,NULL,'{"delivery":"72d3162e-cc78-11e3-81ab-4c9367dc0960","action":{"labeled":"preview"},"pull_request":{"repo":"octo/web","number":7},"head_repo":"octo/web","head_sha":"0000000000000000000000000000000000000002","head_branch":"topic","base_branch":"main","is_fork":false,"author":"alice","sender":"alice","title_changed":false,"body_changed":false,"base_changed":false,"merged":false}',1795255200000000,'pending',1,1795225020665262,'{"code":"github_failed","message":"GitHub does not answer"}',NULL,NULL,NULL);
INSERT INTO deliveries VALUES(4,'72d3162e-cc78-11e3-81ab-4c9367dc0961','octo/web',8,'present','{"delivery":"72d3162e-cc78-11e3-81ab-4c9367dc0961","action":"opened","pull_request":{"repo":"octo/web","number":8},"head_repo":"octo/web","head_sha":"0000000000000000000000000000000000000003","head_branch":"topic","base_branch":"main","is_fork":false,"author":"alice","sender":"alice","title_changed":false,"body_changed":false,"base_changed":false,"merged":false}',1795255200000000,'failed',1,NULL,'{"code":"github_failed","message":"GitHub does not answer"}',1795225015665326,93784000000,NULL);
INSERT INTO deliveries VALUES(5,'72d3162e-cc78-11e3-81ab-4c9367dc0962','octo/web',8,'absent','{"delivery":"72d3162e-cc78-11e3-81ab-4c9367dc0962","action":"closed","pull_request":{"repo":"octo/web","number":8},"head_repo":"octo/web","head_sha":"0000000000000000000000000000000000000003","head_branch":"topic","base_branch":"main","is_fork":false,"author":"alice","sender":"alice","title_changed":false,"body_changed":false,"base_changed":false,"merged":false}',1795255200000000,'pending',0,NULL,NULL,NULL,NULL,NULL);
INSERT INTO deliveries VALUES(6,'c0ffee00-cc78-11e3-81ab-4c9367dc0958','octo/web',7,NULL,'{"delivery":"c0ffee00-cc78-11e3-81ab-4c9367dc0958","pull_request":{"repo":"octo/web","number":7},"repo_id":1,"comment":492700400,"command":"reset-db","sender":"alice","updated_at":"2026-11-20T10:00:00Z"}',1795168700000006,'pending',0,NULL,NULL,NULL,NULL,492700400);
CREATE TABLE previews (
    -- The guest's name.
    slug TEXT PRIMARY KEY NOT NULL,
    repo TEXT NOT NULL COLLATE NOCASE,
    -- The pull request; nothing for a preview that was made by hand.
    number INTEGER,
    branch TEXT NOT NULL,
    head_repo TEXT,
    wanted_sha TEXT NOT NULL,
    live_sha TEXT,
    approved_sha TEXT,
    state TEXT NOT NULL,
    want TEXT NOT NULL,
    -- The key in `evaluations`. No foreign key: an evaluation can be forgotten and made again.
    evaluation TEXT,
    closure TEXT,
    live_closure TEXT,
    meta TEXT,
    live_meta TEXT,
    comment_id INTEGER,
    deployment_id INTEGER,
    fault TEXT,
    last_delivery TEXT,
    last_activity INTEGER NOT NULL,
    created_at INTEGER NOT NULL, disturbed INTEGER NOT NULL DEFAULT 0 CHECK (disturbed IN (0, 1)), approved_by_label INTEGER NOT NULL DEFAULT 0 CHECK (approved_by_label IN (0, 1)), announced_sha TEXT, announced_after INTEGER NOT NULL DEFAULT 0, active_running INTEGER NOT NULL DEFAULT 0, request TEXT, reset_database INTEGER NOT NULL DEFAULT 0 CHECK (reset_database IN (0, 1)), config_seen INTEGER NOT NULL DEFAULT 0 CHECK (config_seen IN (0, 1)), removal_running INTEGER, attempt INTEGER NOT NULL DEFAULT 0 CHECK (attempt >= 0), began_at INTEGER, state_since INTEGER, live_at INTEGER, live_after INTEGER CHECK (live_after >= 0), changes TEXT, config_path TEXT, additional_to INTEGER, details TEXT, visited_at INTEGER, visibility TEXT, owner TEXT,
    -- A pull request has one preview, whatever the code believes.
    UNIQUE (repo, number)
) STRICT;
INSERT INTO previews VALUES('web-7','octo/web',7,'topic',NULL,'0000000000000000000000000000000000000002','0000000000000000000000000000000000000001','0000000000000000000000000000000000000002','failed','present','sha256-k','/nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-guest','/nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-guest','{"setupService":"setup.service","appServices":["web.service"],"database":"host","routes":[{"path":"/","port":3000,"stripPrefix":false}],"hostSecrets":[],"extraHosts":[]}','{"setupService":"setup.service","appServices":["web.service"],"database":"host","routes":[{"path":"/","port":3000,"stripPrefix":false}],"hostSecrets":[],"extraHosts":[]}',5,6,'{"code":"github_failed","message":"GitHub does not answer"}','72d3162e-cc78-11e3-81ab-4c9367dc0959',1795225015654360,1795225015654360,1,1,'0000000000000000000000000000000000000002',3,93000000007,'command',1,1,93000000000,3,1795168800000001,1795168860000002,1795168830000003,30000002,'{"added":[{"name":"nodejs","versions":["22.1"]}],"removed":[],"changed":[],"more":0}',NULL,NULL,'{"title":"A menu","author":"mona","private":false}',1795168700000006,'team',NULL);
INSERT INTO previews VALUES('web-8','octo/web',8,'topic','octo/web','0000000000000000000000000000000000000003',NULL,NULL,'queued','present',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,1795225015661184,1795225015661184,0,0,NULL,0,0,NULL,0,0,NULL,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO previews VALUES('web-7-api','octo/web',NULL,'topic',NULL,'0000000000000000000000000000000000000002','0000000000000000000000000000000000000001','0000000000000000000000000000000000000002','failed','present','sha256-k','/nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-guest','/nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-guest','{"setupService":"setup.service","appServices":["web.service"],"database":"host","routes":[{"path":"/","port":3000,"stripPrefix":false}],"hostSecrets":[],"extraHosts":[]}','{"setupService":"setup.service","appServices":["web.service"],"database":"host","routes":[{"path":"/","port":3000,"stripPrefix":false}],"hostSecrets":[],"extraHosts":[]}',5,6,'{"code":"github_failed","message":"GitHub does not answer"}','72d3162e-cc78-11e3-81ab-4c9367dc0959',1795225015654360,1795225015654360,1,1,'0000000000000000000000000000000000000002',3,93000000007,'command',1,1,93000000000,3,1795168800000001,1795168860000002,1795168830000003,30000002,'{"added":[{"name":"nodejs","versions":["22.1"]}],"removed":[],"changed":[],"more":0}','apps/api/preview.nix',7,NULL,NULL,NULL,NULL);
CREATE TABLE evaluations (
    key TEXT PRIMARY KEY NOT NULL,
    closure TEXT NOT NULL,
    meta TEXT NOT NULL,
    built_at INTEGER NOT NULL,
    used_at INTEGER NOT NULL
, used_running INTEGER NOT NULL DEFAULT 0) STRICT, WITHOUT ROWID;
INSERT INTO evaluations VALUES('sha256-k','/nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-guest','{"setupService":"setup.service","appServices":["web.service"],"database":"host","routes":[{"path":"/","port":3000,"stripPrefix":false}],"hostSecrets":[],"extraHosts":[]}',1795225015669247,1795225015669247,93700000000);
CREATE TABLE snapshots (
    guest TEXT NOT NULL REFERENCES guests (name) ON DELETE CASCADE,
    label TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (guest, label)
) STRICT, WITHOUT ROWID;
INSERT INTO snapshots VALUES('web','20261120-100200',1795168920000000);
INSERT INTO snapshots VALUES('web','before-upgrade',1795168900000000);
CREATE TABLE running_time (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    micros INTEGER NOT NULL CHECK (micros >= 0)
) STRICT;
INSERT INTO running_time VALUES(1,93784000005);
CREATE TABLE repositories (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE COLLATE NOCASE,
    -- Whether GitHub is to be queried for the name.
    to_check INTEGER NOT NULL DEFAULT 0 CHECK (to_check IN (0, 1)),
    deleted_at INTEGER
) STRICT;
INSERT INTO repositories VALUES(1296269,'octo/web',0,NULL);
INSERT INTO repositories VALUES(1296270,'renamed-/old.1296270',1,NULL);
CREATE TABLE repository_names (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL COLLATE NOCASE,
    id INTEGER NOT NULL,
    UNIQUE (name, id)
) STRICT;
INSERT INTO repository_names VALUES(1,'octo/old',1296270);
INSERT INTO repository_names VALUES(2,'octo/web',1296269);
CREATE TABLE identity (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    -- Marks what the daemon makes on the host.
    daemon TEXT NOT NULL,
    -- Whether what releases without identities made for the records of this database was marked.
    adopted INTEGER NOT NULL CHECK (adopted IN (0, 1))
) STRICT;
INSERT INTO identity VALUES(1,'5f0c1d2e3b4a59687786a5b4c3d2e1f0',1);
CREATE TABLE retained (
    -- Part of the name of the files on the host. Never used again, also when old rows have gone.
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    source TEXT NOT NULL,
    closure TEXT,
    limits TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    destroyed_at INTEGER NOT NULL,
    -- The running time from which on the files are kept.
    destroyed_running INTEGER NOT NULL,
    -- What they take of the disk, once it was measured.
    bytes INTEGER,
    -- The guest to which the files belong still, while it is being destroyed, or again, while it is being undeleted.
    guest TEXT REFERENCES guests (name) ON DELETE SET NULL,
    -- Whether the files are to be removed.
    doomed INTEGER NOT NULL DEFAULT 0 CHECK (doomed IN (0, 1)),
    -- The operation that removes them.
    operation INTEGER
) STRICT;
INSERT INTO retained VALUES(3,'web','{"flake":"/srv/fleet#agent"}','/nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-guest','{"memory":"512M","cpus":"1.5","tasks":512}',1795168700000001,1795168790000001,93000000000,4096,NULL,0,NULL);
INSERT INTO retained VALUES(4,'old','{"path":"/nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-guest"}',NULL,'{"memory":"4G","cpus":"2","tasks":4096}',1795168700000002,1795168790000002,93000000001,NULL,NULL,1,5);
INSERT INTO retained VALUES(5,'broken','{"path":"/nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-guest"}',NULL,'{"memory":"4G","cpus":"2","tasks":4096}',1795168800000002,1795168802000000,93000000002,NULL,'broken',0,NULL);
CREATE TABLE pings (
    -- The repository or organization that the webhook belongs to.
    owner TEXT NOT NULL PRIMARY KEY COLLATE NOCASE,
    received_at INTEGER NOT NULL,
    -- The wrong settings, as the API's JSON.
    problems TEXT NOT NULL
) STRICT;
INSERT INTO pings VALUES('octo/web',1795168700000005,'[{"setting":"events","problem":"the event is not selected","remedy":"Select it."}]');
CREATE TABLE checks (
    repo TEXT NOT NULL COLLATE NOCASE,
    number INTEGER NOT NULL,
    -- The check's name: a pull request can have several.
    name TEXT NOT NULL,
    sha TEXT NOT NULL,
    -- The situation to report, in the API's words; nothing while a preview reports its own.
    situation TEXT,
    PRIMARY KEY (repo, number, name, sha)
) STRICT, WITHOUT ROWID;
INSERT INTO checks VALUES('octo/web',7,'innkeeper/preview','1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a',NULL);
INSERT INTO checks VALUES('octo/web',8,'innkeeper/preview','2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b','no-config');
CREATE TABLE older_prefixes (
    -- GitHub compares names of repositories without case.
    repo TEXT NOT NULL COLLATE NOCASE,
    prefix TEXT NOT NULL,
    PRIMARY KEY (repo, prefix)
) STRICT, WITHOUT ROWID;
INSERT INTO older_prefixes VALUES('octo/web','api');
CREATE TABLE seats (
    slot INTEGER PRIMARY KEY CHECK (slot > 0),
    ready INTEGER NOT NULL DEFAULT 0,
    guest TEXT UNIQUE REFERENCES guests (name) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
, closure TEXT) STRICT;
INSERT INTO seats VALUES(2,1,'web',NULL);
INSERT INTO seats VALUES(7,1,NULL,NULL);
INSERT INTO seats VALUES(8,1,NULL,'/nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-guest');
CREATE TABLE tokens (
    id INTEGER PRIMARY KEY CHECK (id > 0),
    name TEXT NOT NULL,
    -- SHA-256 of the token's text.
    digest BLOB NOT NULL CHECK (length(digest) = 32),
    role TEXT NOT NULL,
    -- The only repository whose previews the token may use.
    repo TEXT COLLATE NOCASE,
    created_by TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    last_used_at INTEGER,
    revoked_at INTEGER
, kind TEXT NOT NULL DEFAULT 'token', person INTEGER REFERENCES persons (id), repo_id INTEGER) STRICT;
INSERT INTO tokens VALUES(1,'ci',X'0000000000000000000000000000000000000000000000000000000000000000','viewer','octo/web','uid:0',1795168800000001,1795255200000000,1795168860000000,NULL,'token',NULL,1296269);
INSERT INTO tokens VALUES(2,'laptop',X'0000000000000000000000000000000000000000000000000000000000000000','admin',NULL,'token:1',1795168800000002,NULL,NULL,1795172400000000,'token',NULL,NULL);
INSERT INTO tokens VALUES(3,'octocat.browser.3f9a1c',X'0000000000000000000000000000000000000000000000000000000000000000','operator',NULL,'github:583231',1795168800000005,1795212000000000,NULL,NULL,'browser',583231,NULL);
CREATE TABLE audit (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    time INTEGER NOT NULL,
    began_running INTEGER NOT NULL,
    actor TEXT NOT NULL,
    -- The client's address; NULL for a client on the host.
    source TEXT,
    verb TEXT NOT NULL,
    object TEXT,
    -- 'ok' or the code of a failure; NULL while there is no response.
    result TEXT
) STRICT;
INSERT INTO audit VALUES(4,1795168800000003,7,'token:2','192.0.2.7','guest.create','web','ok');
INSERT INTO audit VALUES(5,1795168800000004,8,'uid:0',NULL,'guest.destroy','broken',NULL);
CREATE TABLE stale_secrets (
    -- Grows with each change, also of the same secret.
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    slug TEXT NOT NULL REFERENCES previews (slug) ON DELETE CASCADE,
    name TEXT NOT NULL,
    UNIQUE (slug, name)
) STRICT;
INSERT INTO stale_secrets VALUES(3,'web-7','MAIL_KEY');
CREATE TABLE persons (
    id INTEGER PRIMARY KEY CHECK (id > 0),
    -- At the last login.
    login TEXT NOT NULL COLLATE NOCASE,
    -- The organizations and teams at the last login that the configuration named, as JSON.
    groups TEXT NOT NULL
) STRICT;
INSERT INTO persons VALUES(583231,'octocat','{"organizations":["octo"],"teams":["octo/platform"]}');
CREATE TABLE preview_grants (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    slug TEXT NOT NULL REFERENCES previews (slug) ON DELETE CASCADE,
    -- 'share' or 'bypass'.
    kind TEXT NOT NULL,
    -- SHA-256 of its text.
    digest BLOB NOT NULL CHECK (length(digest) = 32),
    created_by TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;
INSERT INTO preview_grants VALUES(2,'web-7','bypass',X'0000000000000000000000000000000000000000000000000000000000000000','token:2',1795168800000002,1802944800000002);
DELETE FROM sqlite_sequence;
INSERT INTO sqlite_sequence VALUES('operations',5);
INSERT INTO sqlite_sequence VALUES('events',13);
INSERT INTO sqlite_sequence VALUES('deliveries',6);
INSERT INTO sqlite_sequence VALUES('retained',5);
INSERT INTO sqlite_sequence VALUES('audit',5);
INSERT INTO sqlite_sequence VALUES('stale_secrets',3);
INSERT INTO sqlite_sequence VALUES('preview_grants',2);
CREATE UNIQUE INDEX running_operations ON operations (guest) WHERE state = 'running';
CREATE INDEX events_of_operation ON events (operation, seq) WHERE operation IS NOT NULL;
CREATE INDEX events_of_guest ON events (guest, seq) WHERE guest IS NOT NULL;
CREATE INDEX pending_deliveries ON deliveries (repo, number, seq) WHERE state = 'pending';
CREATE INDEX intents ON deliveries (repo, number, seq)
    WHERE intent IS NOT NULL AND state <> 'ignored';
CREATE INDEX finished_deliveries ON deliveries (seq) WHERE state <> 'pending';
CREATE INDEX all_intents ON deliveries (repo, number, seq) WHERE intent IS NOT NULL;
CREATE UNIQUE INDEX retained_by_guest ON retained (guest) WHERE guest IS NOT NULL;
CREATE UNIQUE INDEX commands ON deliveries (comment) WHERE comment IS NOT NULL;
CREATE INDEX additional_previews ON previews (repo, additional_to) WHERE additional_to IS NOT NULL;
CREATE TRIGGER slots_are_disjoint BEFORE INSERT ON guests
WHEN EXISTS (SELECT 1 FROM guests WHERE slot < NEW.slot + NEW.slots AND NEW.slot < slot + slots)
BEGIN
    SELECT RAISE(ABORT, 'a slot of the guest is another guest''s');
END;
CREATE TRIGGER slots_do_not_change BEFORE UPDATE OF slot, slots ON guests
BEGIN
    SELECT RAISE(ABORT, 'the slots of a guest do not change');
END;
CREATE UNIQUE INDEX tokens_by_name ON tokens (name) WHERE revoked_at IS NULL;
CREATE TRIGGER tokens_stay BEFORE DELETE ON tokens WHEN OLD.kind = 'token'
BEGIN
    SELECT RAISE(ABORT, 'the number of a token is never used again');
END;
CREATE TRIGGER sessions_do_not_change BEFORE UPDATE ON tokens
WHEN (NEW.kind, NEW.person) IS NOT (OLD.kind, OLD.person)
BEGIN
    SELECT RAISE(ABORT, 'a token only gets its last use and its revocation');
END;
CREATE INDEX preview_grants_by_slug ON preview_grants (slug);
CREATE TRIGGER tokens_do_not_change BEFORE UPDATE ON tokens
WHEN OLD.revoked_at IS NOT NULL
    OR (NEW.id, NEW.name, NEW.digest, NEW.role) IS NOT (OLD.id, OLD.name, OLD.digest, OLD.role)
    OR NEW.expires_at IS NOT OLD.expires_at
    OR (OLD.repo_id IS NOT NULL AND NEW.repo_id IS NOT OLD.repo_id)
    OR (OLD.repo_id IS NULL AND NEW.repo IS NOT OLD.repo)
    OR (OLD.repo IS NULL) <> (NEW.repo IS NULL)
BEGIN
    SELECT RAISE(ABORT, 'a token only gets its last use, its revocation and the name of its repository');
END;
CREATE TRIGGER audit_does_not_change BEFORE UPDATE ON audit
WHEN OLD.result IS NOT NULL
    OR (NEW.seq, NEW.time, NEW.began_running, NEW.actor, NEW.verb)
        IS NOT (OLD.seq, OLD.time, OLD.began_running, OLD.actor, OLD.verb)
    OR NEW.source IS NOT OLD.source
    OR (OLD.object IS NOT NULL AND substr(NEW.object, 1, length(OLD.object)) IS NOT OLD.object)
BEGIN
    SELECT RAISE(ABORT, 'an audit entry only gets its result');
END;
PRAGMA application_id = 1231973995;
PRAGMA user_version = 32;
COMMIT;
