//! Assigns the objects in a copied template to the preview. They belong to the template's owner at first, and the preview
//! could neither read nor migrate them.

use super::error::DatabaseError;
use super::session::Session;
use super::sql::literal;

/// Query for the statements that make `ROLE` the owner of all objects in the database, except those of the system and of
/// extensions. A column's sequence follows its table. In PostgreSQL 15 and newer, the schema `public` already belongs to the
/// database's owner.
const STATEMENTS: &str = "
    WITH new AS (SELECT ROLE::text AS owner),
    schemas AS (
        SELECT oid, nspname, nspowner FROM pg_namespace
        WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
    ),
    of_extensions AS (SELECT classid, objid FROM pg_depend WHERE deptype = 'e'),
    statements (step, classid, objid, statement) AS (
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
        UNION ALL
        SELECT 5, 'pg_largeobject'::regclass, oid, format('LARGE OBJECT %s', oid) FROM pg_largeobject_metadata
    )
    SELECT format('ALTER %s OWNER TO %I', statement, owner)
    FROM statements, new
    WHERE (classid, objid) NOT IN (SELECT classid, objid FROM of_extensions)
    ORDER BY step, objid";

/// Makes the role of the database's name the owner of all objects in it.
pub(super) async fn assign(session: &Session, name: &str) -> Result<(), DatabaseError> {
    let action = "change the owner of objects in database";
    let sql = STATEMENTS.replace("ROLE", &literal(name));
    let mut statements = String::from("BEGIN;\n");
    for row in session.rows(action, name, &sql, &[]).await? {
        statements.push_str(row.get(0));
        statements.push_str(";\n");
    }
    statements.push_str("COMMIT");
    session.run(action, name, &statements).await
}
