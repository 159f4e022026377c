-- Group sync of Flexible Server: members of a mapped group have roles of their own. Runs after flexible.sql. Microsoft, "Use
-- Microsoft Entra ID for authentication with Azure Database for PostgreSQL", "Authenticate with Microsoft Entra ID as a group
-- member".

-- The memberships of roles that group sync has made.
CREATE TABLE IF NOT EXISTS pgentra.synced (
    role       oid NOT NULL,
    group_role oid NOT NULL,
    -- Group sync made the role, so group sync may drop it.
    is_made    boolean NOT NULL,
    -- Group sync made the role an administrator.
    is_raised  boolean NOT NULL,
    PRIMARY KEY (role, group_role)
);
REVOKE ALL ON pgentra.synced FROM PUBLIC;

-- The server parameter. A session that sets it for itself changes nothing.
CREATE OR REPLACE FUNCTION pgentra.group_sync_is_on() RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(bool_or(substr(c, length('pgaadauth.enable_group_sync=') + 1)::boolean), false)
    FROM pg_db_role_setting s, unnest(s.setconfig) c
    WHERE s.setdatabase = 0 AND s.setrole = 0 AND c LIKE 'pgaadauth.enable\_group\_sync=%'
$$;

CREATE OR REPLACE FUNCTION pgentra.set_group_sync(is_on boolean) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('ALTER ROLE ALL SET pgaadauth.enable_group_sync = %L', CASE WHEN is_on THEN 'on' ELSE 'off' END);
END
$$;

DO $$
BEGIN
    PERFORM pgentra.set_group_sync(pgentra.group_sync_is_on());
END
$$;

-- Does it, and returns what has changed.
CREATE OR REPLACE FUNCTION pgentra.sync_groups()
RETURNS TABLE (member_role name, group_role name, change text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found record;
    bound record;
    made boolean;
    raised boolean;
    obstacle text;
BEGIN
    FOR found IN
        SELECT g.role, g.rolname, g.is_admin, d.object_id, d.name, d.kind
        FROM pgentra.mapping g
        JOIN pgentra.membership b ON b.group_id = g.object_id
        JOIN pgentra.directory d ON d.object_id = b.member_id
        WHERE g.kind = 'group' AND d.kind <> 'group'
        ORDER BY g.rolname, d.name
    LOOP
        SELECT m.role, m.rolname, m.is_admin, m.is_mfa INTO bound FROM pgentra.mapping m
            WHERE m.object_id = found.object_id ORDER BY m.rolname <> found.name, m.rolname LIMIT 1;
        made := bound.role IS NULL;
        IF made THEN
            -- Without a role for this member, the other members get theirs.
            obstacle := CASE
                WHEN octet_length(found.name) > 63 THEN 'its name is longer than 63 bytes'
                WHEN found.name ~ '^pg_' OR found.name IN ('public', 'none') THEN 'PostgreSQL reserves its name'
                WHEN EXISTS (SELECT FROM pg_roles r WHERE r.rolname = found.name)
                    THEN 'a role that is not mapped to it has its name'
            END;
            IF obstacle IS NOT NULL THEN
                RAISE NOTICE 'Group sync creates no role for "%": %.', found.name, obstacle;
                CONTINUE;
            END IF;
            EXECUTE format('CREATE ROLE %I', found.name);
            PERFORM pgentra.bind(found.name, found.object_id::text, found.kind, found.is_admin, false);
            SELECT m.role, m.rolname, m.is_admin, m.is_mfa INTO STRICT bound FROM pgentra.mapping m
                WHERE m.rolname = found.name;
        END IF;
        CONTINUE WHEN EXISTS (
            SELECT FROM pg_auth_members a
            WHERE a.roleid = found.role AND a.member = bound.role
              AND coalesce((to_jsonb(a)->>'inherit_option')::boolean, true));
        raised := found.is_admin AND NOT bound.is_admin;
        IF raised THEN
            PERFORM pgentra.bind(bound.rolname, found.object_id::text, found.kind, true, bound.is_mfa);
        END IF;
        EXECUTE format('GRANT %I TO %I', found.rolname, bound.rolname);
        INSERT INTO pgentra.synced (role, group_role, is_made, is_raised)
            VALUES (
                bound.role, found.role,
                made OR EXISTS (SELECT FROM pgentra.synced s WHERE s.role = bound.role AND s.is_made),
                raised)
            ON CONFLICT ON CONSTRAINT synced_pkey DO UPDATE SET is_raised = excluded.is_raised;
        RETURN QUERY SELECT bound.rolname::name, found.rolname::name, 'added'::text;
    END LOOP;
    FOR found IN
        SELECT s.role, s.group_role, s.is_made, s.is_raised, m.rolname, m.object_id, m.kind, m.is_mfa, g.rolname AS of_group
        FROM pgentra.synced s
        LEFT JOIN pgentra.mapping m ON m.role = s.role
        LEFT JOIN pgentra.mapping g ON g.role = s.group_role AND g.kind = 'group'
        WHERE NOT EXISTS (
            SELECT FROM pgentra.membership b JOIN pgentra.directory d ON d.object_id = b.member_id
            WHERE b.member_id = m.object_id AND b.group_id = g.object_id)
    LOOP
        DELETE FROM pgentra.synced s WHERE s.role = found.role AND s.group_role = found.group_role;
        -- A role that was dropped or mapped anew by an administrator is the administrator's.
        CONTINUE WHEN found.rolname IS NULL;
        IF found.of_group IS NOT NULL THEN
            PERFORM pgentra.revoke(found.of_group, found.rolname);
        END IF;
        IF found.is_made AND NOT EXISTS (SELECT FROM pgentra.synced s WHERE s.role = found.role) THEN
            BEGIN
                EXECUTE format('DROP ROLE %I', found.rolname);
                DELETE FROM pgentra.principal p WHERE p.role = found.role;
            EXCEPTION WHEN dependent_objects_still_exist THEN
                PERFORM pgentra.unbind(found.rolname);
                EXECUTE format('ALTER ROLE %I NOLOGIN', found.rolname);
            END;
        ELSIF found.is_raised THEN
            PERFORM pgentra.bind(found.rolname, found.object_id::text, found.kind, false, found.is_mfa);
        END IF;
        RETURN QUERY SELECT found.rolname::name, found.of_group::name, 'removed'::text;
    END LOOP;
END
$$;

CREATE OR REPLACE FUNCTION pg_catalog.pgaadauth_sync_roles_for_group_members()
RETURNS TABLE (member_role name, group_role name, change text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    problem record;
BEGIN
    problem := pgentra.caller_problem();
    IF problem.message IS NOT NULL THEN
        RAISE EXCEPTION USING MESSAGE = problem.message, ERRCODE = problem.code, HINT = problem.hint;
    END IF;
    IF NOT pgentra.group_sync_is_on() THEN
        RAISE EXCEPTION 'Group sync is not enabled on this server.'
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Set the server parameter pgaadauth.enable_group_sync to ON.';
    END IF;
    RETURN QUERY SELECT * FROM pgentra.sync_groups();
END
$$;

REVOKE ALL ON FUNCTION
    pgentra.group_sync_is_on(), pgentra.set_group_sync(boolean), pgentra.sync_groups(),
    pg_catalog.pgaadauth_sync_roles_for_group_members()
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pg_catalog.pgaadauth_sync_roles_for_group_members() TO azure_pg_admin;
