//! What is in a copy of a template belongs to whoever made the template. It should belong to the preview,
//! which could otherwise neither read nor migrate it.

use super::error::DatabaseError;
use super::session::Session;
use super::sql::literal;

/// Statements that give the role `$1` all that is in the database, except for what the system or an
/// extension brings. Sequences of a column follow their table. The schema `public` of PostgreSQL 15 and newer
/// belongs to the database's owner by itself.
const STATEMENTS: &str = "
    WITH new AS (SELECT ROLE::text AS owner),
    schemas AS (
        SELECT oid, nspname, nspowner FROM pg_namespace
        WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
    ),
    brought AS (SELECT classid, objid FROM pg_depend WHERE deptype = 'e'),
    statements (place, classid, objid, statement) AS (
        SELECT 1, 'pg_namespace'::regclass, oid, format('SCHEMA %I', nspname)
        FROM schemas WHERE nspowner <> coalesce(to_regrole('pg_database_owner')::oid, 0)
        UNION ALL
        SELECT 2, 'pg_class'::regclass, c.oid, format('%s %s', CASE relkind
            WHEN 'S' THEN 'SEQUENCE' WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW'
            WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END, c.oid::regclass)
        FROM pg_class c JOIN schemas s ON s.oid = relnamespace
        WHERE relkind IN ('r', 'p', 'S', 'v', 'm', 'f') AND NOT EXISTS (
            SELECT FROM pg_depend d WHERE c.relkind = 'S' AND d.classid = 'pg_class'::regclass
            AND d.objid = c.oid AND d.deptype IN ('a', 'i'))
        UNION ALL
        SELECT 3, 'pg_proc'::regclass, p.oid, format('%s %s',
            CASE prokind WHEN 'a' THEN 'AGGREGATE' ELSE 'ROUTINE' END,
            p.oid::regprocedure)
        FROM pg_proc p JOIN schemas s ON s.oid = pronamespace
        UNION ALL
        SELECT 4, 'pg_type'::regclass, t.oid,
            format('%s %s', CASE typtype WHEN 'd' THEN 'DOMAIN' ELSE 'TYPE' END, t.oid::regtype)
        FROM pg_type t JOIN schemas s ON s.oid = typnamespace LEFT JOIN pg_class c ON c.oid = typrelid
        WHERE typtype IN ('d', 'e', 'r') OR (typtype = 'c' AND c.relkind = 'c')
    )
    SELECT format('ALTER %s OWNER TO %I', statement, owner)
    FROM statements, new
    WHERE (classid, objid) NOT IN (SELECT classid, objid FROM brought)
    ORDER BY place, objid";

/// Gives the role of the database's name all that is in it.
pub(super) async fn take(session: &Session, name: &str) -> Result<(), DatabaseError> {
    let action = "take over what is in database";
    let sql = STATEMENTS.replace("ROLE", &literal(name));
    let mut statements = String::from("BEGIN;\n");
    for row in session.rows(action, name, &sql, &[]).await? {
        statements.push_str(row.get(0));
        statements.push_str(";\n");
    }
    statements.push_str("COMMIT");
    session.run(action, name, &statements).await
}
