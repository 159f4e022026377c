//! What is asked of a database about privileges.

pub(super) const SCHEMAS: &str = "SELECT nspname::text FROM pg_catalog.pg_namespace";

/// The database itself; the schemas that the file names and what is in them; and whatever the roles hold something on,
/// but for the system's own. $1: schemas, $2: roles.
pub(super) const OBJECTS: &str = "
WITH held AS (SELECT oid FROM pg_catalog.pg_roles WHERE rolname::text = ANY($2)),
x (letter, class, oid, ns, name, arguments, is_procedure, owner, signature, types, acl) AS (
    SELECT CASE c.relkind WHEN 'S' THEN 'S' ELSE 'r' END, 'pg_catalog.pg_class'::regclass, c.oid, c.relnamespace,
           c.relname, NULL::text, false, c.relowner, NULL::text, NULL::oid[], c.relacl
    FROM pg_catalog.pg_class c WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
    UNION ALL
    SELECT 'f', 'pg_catalog.pg_proc'::regclass, p.oid, p.pronamespace, p.proname,
           pg_catalog.pg_get_function_identity_arguments(p.oid), p.prokind = 'p', p.proowner,
           oidvectortypes(p.proargtypes), p.proargtypes::oid[], p.proacl
    FROM pg_catalog.pg_proc p
    UNION ALL
    SELECT 'T', 'pg_catalog.pg_type'::regclass, t.oid, t.typnamespace, t.typname, NULL, false, t.typowner, NULL, NULL,
           t.typacl
    FROM pg_catalog.pg_type t LEFT JOIN pg_catalog.pg_class c ON c.oid = t.typrelid
    WHERE (t.typrelid = 0 OR c.relkind = 'c') AND t.typtype NOT IN ('m', 'p')
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_type e WHERE e.typarray = t.oid))
SELECT 'd'::text, d.oid, NULL::text, d.datname::text, NULL::text, false,
       pg_catalog.pg_get_userbyid(d.datdba)::text, false, NULL::text, '{}'::text[], '{}'::text[]
FROM pg_catalog.pg_database d WHERE d.datname = current_database()
UNION ALL
SELECT 'n', n.oid, NULL, n.nspname::text, NULL, false, pg_catalog.pg_get_userbyid(n.nspowner)::text, false, NULL, '{}', '{}'
FROM pg_catalog.pg_namespace n
WHERE n.nspname::text = ANY($1)
   OR n.nspname !~ '^(pg_|information_schema$)'
      AND EXISTS (SELECT FROM aclexplode(n.nspacl) a WHERE a.grantee IN (TABLE held))
UNION ALL
SELECT x.letter, x.oid, n.nspname::text, x.name::text, x.arguments, x.is_procedure,
       pg_catalog.pg_get_userbyid(x.owner)::text,
       EXISTS (SELECT FROM pg_catalog.pg_depend e
               WHERE e.classid = x.class AND e.objid = x.oid
                 AND (e.deptype = 'e' OR e.deptype = 'i' AND x.letter = 'f')),
       x.signature, a.schemas, a.names
FROM x JOIN pg_catalog.pg_namespace n ON n.oid = x.ns
CROSS JOIN LATERAL (
    SELECT coalesce(array_agg(tn.nspname::text ORDER BY u.place), '{}') AS schemas,
           coalesce(array_agg(t.typname::text ORDER BY u.place), '{}') AS names
    FROM unnest(x.types) WITH ORDINALITY u(type, place)
    JOIN pg_catalog.pg_type t ON t.oid = u.type JOIN pg_catalog.pg_namespace tn ON tn.oid = t.typnamespace) a
WHERE n.nspname::text = ANY($1)
   OR n.nspname !~ '^(pg_|information_schema$)'
      AND EXISTS (SELECT FROM aclexplode(x.acl) a WHERE a.grantee IN (TABLE held))";

/// What the roles ($1) were granted themselves. An owner's own privileges are in these lists too, and are left out.
pub(super) const HELD: &str = "
SELECT r.rolname::text, x.class, x.oid, a.privilege_type::text
FROM (
    SELECT 'd'::text AS class, oid, datdba AS owner, datacl AS acl
    FROM pg_catalog.pg_database WHERE datname = current_database()
    UNION ALL SELECT 'n', oid, nspowner, nspacl FROM pg_catalog.pg_namespace
    UNION ALL SELECT CASE relkind WHEN 'S' THEN 'S' ELSE 'r' END, oid, relowner, relacl
    FROM pg_catalog.pg_class WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
    UNION ALL SELECT 'f', oid, proowner, proacl FROM pg_catalog.pg_proc
    UNION ALL SELECT 'T', oid, typowner, typacl FROM pg_catalog.pg_type
) x
CROSS JOIN LATERAL aclexplode(x.acl) a
JOIN pg_catalog.pg_roles r ON r.oid = a.grantee
WHERE r.rolname::text = ANY($1) AND a.grantee <> x.owner";

pub(super) const DEFAULTS: &str = "
SELECT r.rolname::text, pg_catalog.pg_get_userbyid(d.defaclrole)::text, n.nspname::text,
       d.defaclobjtype::text, a.privilege_type::text
FROM pg_catalog.pg_default_acl d
LEFT JOIN pg_catalog.pg_namespace n ON n.oid = d.defaclnamespace
CROSS JOIN LATERAL aclexplode(d.defaclacl) a
JOIN pg_catalog.pg_roles r ON r.oid = a.grantee
WHERE r.rolname::text = ANY($1) AND a.grantee <> d.defaclrole AND d.defaclobjtype IN ('r', 'S', 'f', 'T')";
