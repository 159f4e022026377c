-- The flavour of Flexible Server: roles are mapped to Entra principals by the pgaadauth functions.
-- Runs after gateway.sql. Signatures and texts: Microsoft, "Manage Microsoft Entra users in Azure Database for PostgreSQL".

-- A role that has been dropped leaves its row behind, and its oid may come again in a new role after the counter has gone
-- round. So a row counts only for a role that is a member of pgentra_principal, which a new role is not.
CREATE TABLE IF NOT EXISTS pgentra.principal (
    role       oid PRIMARY KEY,
    object_id  uuid NOT NULL,
    tenant_id  uuid NOT NULL,
    kind       text NOT NULL CHECK (kind IN ('user', 'group', 'service')),
    is_admin   boolean NOT NULL,
    is_mfa     boolean NOT NULL
);
REVOKE ALL ON pgentra.principal FROM PUBLIC;

SELECT pgentra.make_role('pgentra_principal');

-- The mapping that counts.
CREATE OR REPLACE VIEW pgentra.mapping AS
    SELECT r.oid AS role, r.rolname, p.object_id, p.tenant_id, p.kind, p.is_admin, p.is_mfa,
           r.rolpassword IS NOT DISTINCT FROM g.verifier AS is_adopted
    FROM pg_catalog.pg_authid r
    JOIN pgentra.principal p ON p.role = r.oid
    CROSS JOIN pgentra.gateway g
    WHERE EXISTS (
        SELECT FROM pg_catalog.pg_auth_members m
        JOIN pg_catalog.pg_roles marker ON marker.oid = m.roleid
        WHERE m.member = r.oid AND marker.rolname = 'pgentra_principal');
REVOKE ALL ON pgentra.mapping FROM PUBLIC;

-- Whoever is signed in must be an Entra administrator; being one in another role's name does not count.
CREATE OR REPLACE FUNCTION pgentra.require_administrator() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pgentra.mapping WHERE rolname = session_user AND is_admin) THEN
        RAISE EXCEPTION 'Only a Microsoft Entra administrator can manage Microsoft Entra roles.'
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'Sign in as the Microsoft Entra administrator of the server and try again.';
    END IF;
END
$$;

-- Checks what the functions are given.
CREATE OR REPLACE FUNCTION pgentra.require_arguments(rolename text, objectid text, objecttype text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF rolename IS NULL OR rolename = '' THEN
        RAISE EXCEPTION 'The role name is missing.' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF octet_length(rolename) > 63 THEN
        RAISE EXCEPTION 'The role name "%" is longer than 63 bytes.', rolename
            USING ERRCODE = 'name_too_long', HINT = 'Choose another role name: with an object id any name will do.';
    END IF;
    IF objectid IS NULL OR objectid !~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN
        RAISE EXCEPTION 'The object id "%" is not a GUID.', objectid USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF objecttype IS NULL OR objecttype NOT IN ('user', 'group', 'service') THEN
        RAISE EXCEPTION 'The object type "%" is not one of user, group, service.', objecttype
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
END
$$;

-- Binds a role, which may be there already, to a principal.
CREATE OR REPLACE FUNCTION pgentra.bind(
    rolename text, objectid text, objecttype text, isadmin boolean, ismfa boolean) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    bound oid;
BEGIN
    PERFORM pgentra.require_arguments(rolename, objectid, objecttype);
    SELECT r.oid INTO bound FROM pg_roles r WHERE r.rolname = rolename;
    IF bound IS NULL THEN
        EXECUTE format('CREATE ROLE %I', rolename);
        SELECT r.oid INTO STRICT bound FROM pg_roles r WHERE r.rolname = rolename;
    END IF;
    DELETE FROM pgentra.principal p WHERE p.role = bound OR NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = p.role);
    INSERT INTO pgentra.principal (role, object_id, tenant_id, kind, is_admin, is_mfa)
        SELECT bound, objectid::uuid, g.tenant_id, objecttype, coalesce(isadmin, false), coalesce(ismfa, false)
        FROM pgentra.gateway g;
    EXECUTE format('ALTER ROLE %I LOGIN', rolename);
    -- A new row in pg_auth_members each time, which every role can read: the proxy's kept sessions end with the mapping that they
    -- were opened under.
    PERFORM pgentra.revoke('pgentra_principal', rolename);
    EXECUTE format('GRANT pgentra_principal TO %I', rolename);
    PERFORM pgentra.adopt(rolename);
    PERFORM pgentra.set_administrator(rolename, coalesce(isadmin, false));
END
$$;

-- Ends a membership, and does not warn where there is none.
CREATE OR REPLACE FUNCTION pgentra.revoke(granted text, rolename text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (
        SELECT FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid JOIN pg_roles r ON r.oid = m.member
        WHERE g.rolname = granted AND r.rolname = rolename) THEN
        EXECUTE format('REVOKE %I FROM %I', granted, rolename);
    END IF;
END
$$;

-- Makes a role an administrator, or makes it none.
CREATE OR REPLACE FUNCTION pgentra.set_administrator(rolename text, isadmin boolean) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    -- From PostgreSQL 16 on, CREATEROLE alone does not allow to alter or drop a role: that takes ADMIN OPTION on it.
    needs_admin_option CONSTANT boolean := current_setting('server_version_num')::integer >= 160000;
BEGIN
    IF isadmin THEN
        -- A role cannot be a member of its own member.
        PERFORM pgentra.revoke(rolename, 'azure_pg_admin');
        EXECUTE format('ALTER ROLE %I CREATEROLE CREATEDB', rolename);
        EXECUTE format('GRANT azure_pg_admin TO %I', rolename);
    ELSE
        EXECUTE format('ALTER ROLE %I NOCREATEROLE NOCREATEDB', rolename);
        PERFORM pgentra.revoke('azure_pg_admin', rolename);
        IF needs_admin_option THEN
            EXECUTE format('GRANT %I TO azure_pg_admin WITH ADMIN TRUE, INHERIT FALSE, SET FALSE', rolename);
        END IF;
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION pg_catalog.pgaadauth_create_principal_with_oid(
    rolename text, objectid text, objecttype text, isadmin boolean, ismfa boolean) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pgentra.require_administrator();
    PERFORM pgentra.require_arguments(rolename, objectid, objecttype);
    EXECUTE format('CREATE ROLE %I', rolename);
    PERFORM pgentra.bind(rolename, objectid, objecttype, isadmin, ismfa);
    RETURN format('Created role for "%s"', rolename);
END
$$;

CREATE OR REPLACE FUNCTION pg_catalog.pgaadauth_create_principal(
    rolename text, isadmin boolean, ismfa boolean) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found pgentra.directory;
BEGIN
    PERFORM pgentra.require_administrator();
    SELECT d.* INTO STRICT found FROM pgentra.directory d WHERE d.name = rolename;
    RETURN pgaadauth_create_principal_with_oid(rolename, found.object_id::text, found.kind, isadmin, ismfa);
EXCEPTION
    WHEN no_data_found THEN
        RAISE EXCEPTION 'Could not validate AAD user % because its name is not found in the tenant.', rolename
            USING ERRCODE = 'internal_error',
                  HINT = 'Use pgaadauth_create_principal_with_oid with the object id of the principal.';
    WHEN too_many_rows THEN
        RAISE EXCEPTION E'Cannot validate Microsoft Entra ID user "%" because its name isn''t unique in the tenant.\nMake sure it''s correct and retry.', rolename
            USING ERRCODE = 'internal_error',
                  HINT = 'Use pgaadauth_create_principal_with_oid with the object id of the principal.';
END
$$;

CREATE OR REPLACE FUNCTION pg_catalog.pgaadauth_update_principal_with_oid(
    rolename text, objectid text, objecttype text, isadmin boolean, ismfa boolean) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    updated oid;
BEGIN
    PERFORM pgentra.require_administrator();
    SELECT r.oid INTO updated FROM pg_roles r WHERE r.rolname = rolename;
    IF updated IS NULL THEN
        RAISE EXCEPTION 'role "%" does not exist', rolename USING ERRCODE = 'undefined_object';
    END IF;
    -- Whoever binds a role to a principal of theirs becomes it, so it must not be more than they are.
    IF pgentra.is_powerful(updated) OR rolename ~ '^(pg_|pgentra_|azure_pg_admin$)' THEN
        RAISE EXCEPTION 'permission denied to bind role "%" to a Microsoft Entra principal', rolename
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    PERFORM pgentra.bind(rolename, objectid, objecttype, isadmin, ismfa);
    RETURN format('Updated role for "%s"', rolename);
END
$$;

CREATE OR REPLACE FUNCTION pg_catalog.pgaadauth_drop_principal_if_exists(rolename text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    dropped oid;
BEGIN
    PERFORM pgentra.require_administrator();
    SELECT m.role INTO dropped FROM pgentra.mapping m WHERE m.rolname = rolename;
    IF dropped IS NULL THEN
        RETURN format('No role for "%s"', rolename);
    END IF;
    EXECUTE format('DROP ROLE %I', rolename);
    DELETE FROM pgentra.principal p WHERE p.role = dropped;
    RETURN format('Dropped role for "%s"', rolename);
END
$$;

CREATE OR REPLACE FUNCTION pg_catalog.pgaadauth_list_principals(isadminvalue boolean)
RETURNS TABLE (rolname name, principaltype text, objectid text, tenantid text, ismfa integer, isadmin integer)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pgentra.require_administrator();
    RETURN QUERY
        SELECT m.rolname, m.kind, m.object_id::text, m.tenant_id::text, m.is_mfa::integer, m.is_admin::integer
        FROM pgentra.mapping m
        WHERE m.is_admin OR NOT coalesce(isadminvalue, false)
        ORDER BY m.rolname;
END
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA pgentra FROM PUBLIC;
REVOKE ALL ON FUNCTION
    pg_catalog.pgaadauth_create_principal(text, boolean, boolean),
    pg_catalog.pgaadauth_create_principal_with_oid(text, text, text, boolean, boolean),
    pg_catalog.pgaadauth_update_principal_with_oid(text, text, text, boolean, boolean),
    pg_catalog.pgaadauth_drop_principal_if_exists(text),
    pg_catalog.pgaadauth_list_principals(boolean)
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    pg_catalog.pgaadauth_create_principal(text, boolean, boolean),
    pg_catalog.pgaadauth_create_principal_with_oid(text, text, text, boolean, boolean),
    pg_catalog.pgaadauth_update_principal_with_oid(text, text, text, boolean, boolean),
    pg_catalog.pgaadauth_drop_principal_if_exists(text),
    pg_catalog.pgaadauth_list_principals(boolean)
TO azure_pg_admin;
