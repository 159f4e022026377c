/* pgentra: would a new session be as this one? */
SELECT CASE WHEN NOT EXISTS (
    SELECT FROM pg_catalog.pg_event_trigger t
    WHERE t.evtevent OPERATOR(pg_catalog.=) 'login' AND t.evtenabled OPERATOR(pg_catalog.<>) 'D')
  AND (r.rolsuper OR r.rolconnlimit OPERATOR(pg_catalog.<) 0 OR r.rolconnlimit OPERATOR(pg_catalog.>=) (
    SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_get_activity(NULL) a
    WHERE a.usesysid OPERATOR(pg_catalog.=) r.oid
      AND a.backend_type OPERATOR(pg_catalog.=) ANY (ARRAY['client backend', 'walsender'])))
  AND (r.rolsuper OR d.datconnlimit OPERATOR(pg_catalog.<) 0 OR d.datconnlimit OPERATOR(pg_catalog.>=) (
    SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_get_activity(NULL) a
    WHERE a.datid OPERATOR(pg_catalog.=) d.oid
      AND a.backend_type OPERATOR(pg_catalog.=) ANY (ARRAY['client backend', 'walsender'])))
THEN pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(ROW(
  r,
  d.oid, d.datname, d.datallowconn, d.datconnlimit,
  pg_catalog.has_database_privilege(r.oid, d.oid, 'CONNECT'),
  r.rolvaliduntil OPERATOR(pg_catalog.>) pg_catalog.now(),
  pg_catalog.pg_is_in_recovery(),
  pg_catalog.pg_conf_load_time(),
  (SELECT pg_catalog.array_agg(ROW(s.*) ORDER BY s.setdatabase, s.setrole) FROM pg_catalog.pg_db_role_setting s
    WHERE (s.setdatabase OPERATOR(pg_catalog.=) 0 OR s.setdatabase OPERATOR(pg_catalog.=) d.oid)
      AND (s.setrole OPERATOR(pg_catalog.=) 0 OR s.setrole OPERATOR(pg_catalog.=) r.oid)),
  (SELECT pg_catalog.array_agg(ROW(l.provider, l.label, l.xmin) ORDER BY l.provider) FROM pg_catalog.pg_shseclabel l
    WHERE l.objoid OPERATOR(pg_catalog.=) r.oid
      AND l.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_authid'::pg_catalog.regclass),
  (SELECT pg_catalog.array_agg(ROW(m.*, m.xmin) ORDER BY m.roleid, m.member, m.grantor) FROM pg_catalog.pg_auth_members m
    WHERE pg_catalog.pg_has_role(r.oid, m.member, 'MEMBER'))
)::pg_catalog.text, pg_catalog.getdatabaseencoding())), 'hex') END
FROM pg_catalog.pg_roles r, pg_catalog.pg_database d
WHERE r.rolname OPERATOR(pg_catalog.=) SESSION_USER AND d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
