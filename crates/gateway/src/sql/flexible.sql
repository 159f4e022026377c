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
    is_mfa     boolean NOT NULL,
    -- Resource Manager made the role, so Resource Manager may drop it.
    of_server  boolean NOT NULL DEFAULT false
);
ALTER TABLE pgentra.principal ADD COLUMN IF NOT EXISTS of_server boolean NOT NULL DEFAULT false;
-- The security label as it was written; NULL: a function made the mapping.
ALTER TABLE pgentra.principal ADD COLUMN IF NOT EXISTS label text;
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

-- What keeps a call from being carried out. The functions that clients call raise it themselves: an error that another
-- function raises has the names of both in its context, and Azure shows none.

-- The session user must be an Entra administrator; being one in another role's name does not count.
CREATE OR REPLACE FUNCTION pgentra.caller_problem(OUT message text, OUT code text, OUT hint text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pgentra.mapping WHERE rolname = session_user AND is_admin) THEN
        message := 'Only a Microsoft Entra administrator can manage Microsoft Entra roles.';
        code := 'insufficient_privilege';
        hint := 'Sign in as the Microsoft Entra administrator of the server and try again.';
    END IF;
END
$$;

-- What the functions are given. A principal of the directory has one kind; of others nothing is known.
CREATE OR REPLACE FUNCTION pgentra.argument_problem(
    rolename text, objectid text, objecttype text, OUT message text, OUT code text, OUT hint text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    actual text;
BEGIN
    code := 'invalid_parameter_value';
    IF rolename IS NULL OR rolename = '' THEN
        message := 'The role name is missing.';
        hint := 'The first argument is the name of the role.';
    ELSIF octet_length(rolename) > 63 THEN
        message := format('The role name "%s" is longer than 63 bytes.', rolename);
        code := 'name_too_long';
        hint := 'Choose another role name: with an object id any name will do.';
    ELSIF objectid IS NULL OR objectid !~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN
        message := format('The object id "%s" is not a GUID.', objectid);
        hint := 'The second argument is the object id of the principal, as the directory shows it.';
    ELSIF objecttype IS NULL OR objecttype NOT IN ('user', 'group', 'service') THEN
        message := format('The object type "%s" is not one of user, group, service.', objecttype);
        hint := 'Managed identities and applications are of the type service.';
    ELSE
        SELECT d.kind INTO actual FROM pgentra.directory d WHERE d.object_id = objectid::uuid;
        IF actual <> objecttype THEN
            message := format(
                'incorrect object type provided for principal, given object type: %L, actual object type: %L',
                objecttype, actual);
            code := 'internal_error';
            hint := format('Give the object type %L.', actual);
        END IF;
    END IF;
END
$$;

DROP FUNCTION IF EXISTS pgentra.require_administrator(), pgentra.require_arguments(text, text, text);

-- Binds a role, which may be there already, to a principal.
CREATE OR REPLACE FUNCTION pgentra.bind(
    rolename text, objectid text, objecttype text, isadmin boolean, ismfa boolean) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    bound oid;
    problem record;
    made_by_server boolean;
BEGIN
    problem := pgentra.argument_problem(rolename, objectid, objecttype);
    IF problem.message IS NOT NULL THEN
        RAISE EXCEPTION USING MESSAGE = problem.message, ERRCODE = problem.code, HINT = problem.hint;
    END IF;
    SELECT r.oid INTO bound FROM pg_roles r WHERE r.rolname = rolename;
    IF bound IS NULL THEN
        EXECUTE format('CREATE ROLE %I', rolename);
        SELECT r.oid INTO STRICT bound FROM pg_roles r WHERE r.rolname = rolename;
    END IF;
    made_by_server := EXISTS (
        SELECT FROM pgentra.mapping m JOIN pgentra.principal p USING (role)
        WHERE m.role = bound AND m.object_id = objectid::uuid AND p.of_server);
    DELETE FROM pgentra.principal p WHERE p.role = bound OR NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = p.role);
    INSERT INTO pgentra.principal (role, object_id, tenant_id, kind, is_admin, is_mfa, of_server)
        SELECT bound, objectid::uuid, g.tenant_id, objecttype, coalesce(isadmin, false), coalesce(ismfa, false),
               made_by_server
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
        -- REPLICATION too, so that it can be given to others, as on Azure. Before PostgreSQL 16 that takes a superuser.
        EXECUTE format('ALTER ROLE %I CREATEROLE CREATEDB REPLICATION', rolename);
        EXECUTE format('GRANT azure_pg_admin TO %I', rolename);
    ELSE
        -- A role that was no administrator keeps what an administrator gave it.
        IF EXISTS (SELECT FROM pg_roles r WHERE r.rolname = rolename AND r.rolcreaterole AND r.rolreplication) THEN
            EXECUTE format('ALTER ROLE %I NOREPLICATION', rolename);
        END IF;
        EXECUTE format('ALTER ROLE %I NOCREATEROLE NOCREATEDB', rolename);
        PERFORM pgentra.revoke('azure_pg_admin', rolename);
        IF needs_admin_option THEN
            EXECUTE format('GRANT %I TO azure_pg_admin WITH ADMIN TRUE, INHERIT FALSE, SET FALSE', rolename);
        END IF;
    END IF;
END
$$;

-- Makes a mapped role an ordinary one again, as which no token signs in.
CREATE OR REPLACE FUNCTION pgentra.unbind(rolename text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pgentra.set_administrator(rolename, false);
    PERFORM pgentra.revoke('pgentra_principal', rolename);
    EXECUTE format('ALTER ROLE %I PASSWORD NULL', rolename);
    DELETE FROM pgentra.principal p USING pg_roles r WHERE r.oid = p.role AND r.rolname = rolename;
END
$$;

-- Binds a role as one of Resource Manager's administrators.
CREATE OR REPLACE FUNCTION pgentra.make_administrator(rolename text, objectid text, objecttype text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pgentra.bind(rolename, objectid, objecttype, true, false);
    UPDATE pgentra.principal p SET of_server = true FROM pg_roles r WHERE r.oid = p.role AND r.rolname = rolename;
END
$$;

-- What Resource Manager does for a new administrator of the server. Returns why it is not done: on Azure a principal that
-- is there already stays what it is. The same administrator once more is no change.
CREATE OR REPLACE FUNCTION pgentra.add_administrator(rolename text, objectid text, objecttype text) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    problem record;
BEGIN
    problem := pgentra.argument_problem(rolename, objectid, objecttype);
    IF problem.message IS NOT NULL THEN
        RETURN problem.message;
    END IF;
    IF EXISTS (
        SELECT FROM pgentra.mapping m JOIN pgentra.principal p USING (role)
        WHERE m.rolname = rolename AND m.object_id = objectid::uuid AND m.is_admin AND p.of_server) THEN
        RETURN NULL;
    END IF;
    IF EXISTS (SELECT FROM pgentra.mapping m WHERE m.object_id = objectid::uuid)
        OR EXISTS (SELECT FROM pg_roles r WHERE r.rolname = rolename) THEN
        RETURN 'Updating an existing principal isn''t supported. Drop and recreate the Microsoft Entra principal.';
    END IF;
    PERFORM pgentra.make_administrator(rolename, objectid, objecttype);
    RETURN NULL;
END
$$;

-- What Resource Manager does when an administrator is removed: the role that it made goes. One that owns something cannot
-- go; it stays for the other administrators to deal with, and it can no longer sign in.
CREATE OR REPLACE FUNCTION pgentra.remove_administrator(objectid text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    removed record;
BEGIN
    FOR removed IN
        SELECT m.role, m.rolname FROM pgentra.mapping m JOIN pgentra.principal p USING (role)
        WHERE m.object_id = objectid::uuid AND p.of_server
    LOOP
        BEGIN
            EXECUTE format('DROP ROLE %I', removed.rolname);
        EXCEPTION WHEN dependent_objects_still_exist THEN
            PERFORM pgentra.set_administrator(removed.rolname, false);
            PERFORM pgentra.revoke('pgentra_principal', removed.rolname);
            EXECUTE format('ALTER ROLE %I NOLOGIN PASSWORD NULL', removed.rolname);
        END;
        DELETE FROM pgentra.principal p WHERE p.role = removed.role;
    END LOOP;
END
$$;

CREATE OR REPLACE FUNCTION pg_catalog.pgaadauth_create_principal_with_oid(
    rolename text, objectid text, objecttype text, isadmin boolean, ismfa boolean) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    problem record;
BEGIN
    problem := pgentra.caller_problem();
    IF problem.message IS NULL THEN
        problem := pgentra.argument_problem(rolename, objectid, objecttype);
    END IF;
    IF problem.message IS NOT NULL THEN
        RAISE EXCEPTION USING MESSAGE = problem.message, ERRCODE = problem.code, HINT = problem.hint;
    END IF;
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
    problem record;
BEGIN
    problem := pgentra.caller_problem();
    IF problem.message IS NOT NULL THEN
        RAISE EXCEPTION USING MESSAGE = problem.message, ERRCODE = problem.code, HINT = problem.hint;
    END IF;
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
    problem record;
BEGIN
    problem := pgentra.caller_problem();
    IF problem.message IS NULL THEN
        problem := pgentra.argument_problem(rolename, objectid, objecttype);
    END IF;
    IF problem.message IS NOT NULL THEN
        RAISE EXCEPTION USING MESSAGE = problem.message, ERRCODE = problem.code, HINT = problem.hint;
    END IF;
    SELECT r.oid INTO updated FROM pg_roles r WHERE r.rolname = rolename;
    IF updated IS NULL THEN
        RAISE EXCEPTION 'role "%" does not exist', rolename USING ERRCODE = 'undefined_object';
    END IF;
    -- A user can sign in as a role that is bound to the user's principal, so the role must not have more rights than the user.
    IF pgentra.is_powerful(updated) OR rolename ~ '^(pg_|pgentra_|azure_pg_admin$)' THEN
        RAISE EXCEPTION 'permission denied to bind role "%" to a Microsoft Entra principal', rolename
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    PERFORM pgentra.bind(rolename, objectid, objecttype, isadmin, ismfa);
    RETURN format('Updated role for "%s"', rolename);
END
$$;

-- What SECURITY LABEL does for the providers "pgaadauth" and "pgaadauth-int"; NULL takes the mapping away. A label of the
-- first is aadauth[,oid=GUID][,type=user|group|service][,admin]. Without an object id the role's name is looked up in the
-- tenant. The second says what is in force: type=user|group|service,oid=GUID,tenant_id=GUID.
CREATE OR REPLACE PROCEDURE pg_catalog.pgentra_security_label(provider text, rolename text, wanted text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    problem record;
    labelled record;
    was record;
    word text;
    objectid text;
    objecttype text;
    isadmin boolean := false;
    ismfa boolean := false;
    is_internal CONSTANT boolean := provider = 'pgaadauth-int';
    known integer;
BEGIN
    problem := pgentra.caller_problem();
    IF problem.message IS NOT NULL THEN
        RAISE EXCEPTION USING MESSAGE = problem.message, ERRCODE = problem.code, HINT = problem.hint;
    END IF;
    SELECT r.oid, r.rolcanlogin INTO labelled FROM pg_roles r WHERE r.rolname = rolename;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'role "%" does not exist', rolename USING ERRCODE = 'undefined_object';
    END IF;
    IF pgentra.is_powerful(labelled.oid) OR rolename ~ '^(pg_|pgentra_|azure_pg_admin$)' THEN
        RAISE EXCEPTION 'permission denied to bind role "%" to a Microsoft Entra principal', rolename
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    SELECT m.object_id, m.is_admin, m.is_mfa, p.label INTO was
        FROM pgentra.mapping m JOIN pgentra.principal p USING (role) WHERE m.role = labelled.oid;
    IF wanted IS NULL THEN
        IF was.object_id IS NOT NULL THEN
            PERFORM pgentra.unbind(rolename);
        END IF;
        RETURN;
    END IF;
    FOREACH word IN ARRAY string_to_array(wanted, ',') LOOP
        word := btrim(word);
        CASE
            WHEN word = 'aadauth' AND NOT is_internal THEN NULL;
            WHEN word = 'admin' AND NOT is_internal THEN isadmin := true;
            WHEN word LIKE 'oid=%' THEN objectid := substr(word, 5);
            WHEN word LIKE 'type=%' THEN objecttype := substr(word, 6);
            WHEN word = (SELECT 'tenant_id=' || g.tenant_id FROM pgentra.gateway g) AND is_internal THEN NULL;
            ELSE RAISE EXCEPTION 'The word "%" of the security label is not known.', word
                USING ERRCODE = 'invalid_parameter_value',
                      HINT = 'A label is aadauth,oid=OBJECT_ID,type=service, and has the word admin for an administrator.';
        END CASE;
    END LOOP;
    IF NOT is_internal AND btrim(split_part(wanted, ',', 1)) <> 'aadauth' THEN
        RAISE EXCEPTION 'The security label does not begin with aadauth.' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF objectid IS NULL THEN
        SELECT count(*) INTO known FROM pgentra.directory d WHERE d.name = rolename;
        IF known = 0 THEN
            RAISE EXCEPTION 'Could not validate AAD user % because its name is not found in the tenant.', rolename
                USING ERRCODE = 'internal_error', HINT = 'Add oid=OBJECT_ID and type=service to the label.';
        ELSIF known > 1 THEN
            RAISE EXCEPTION E'Cannot validate Microsoft Entra ID user "%" because its name isn''t unique in the tenant.\nMake sure it''s correct and retry.', rolename
                USING ERRCODE = 'internal_error', HINT = 'Add oid=OBJECT_ID and type=service to the label.';
        END IF;
        SELECT d.object_id::text, coalesce(objecttype, d.kind) INTO objectid, objecttype
            FROM pgentra.directory d WHERE d.name = rolename;
    END IF;
    -- Without a type the server takes a principal for a user.
    objecttype := coalesce(objecttype, 'user');
    problem := pgentra.argument_problem(rolename, objectid, objecttype);
    IF problem.message IS NOT NULL THEN
        RAISE EXCEPTION USING MESSAGE = problem.message, ERRCODE = problem.code, HINT = problem.hint;
    END IF;
    IF was.object_id = objectid::uuid THEN
        ismfa := was.is_mfa;
        isadmin := isadmin OR (is_internal AND was.is_admin);
    END IF;
    PERFORM pgentra.bind(rolename, objectid, objecttype, isadmin, ismfa);
    IF NOT labelled.rolcanlogin THEN
        EXECUTE format('ALTER ROLE %I NOLOGIN', rolename);
    END IF;
    UPDATE pgentra.principal p SET label = CASE WHEN is_internal THEN was.label ELSE wanted END WHERE p.role = labelled.oid;
END
$$;

CREATE OR REPLACE FUNCTION pg_catalog.pgaadauth_drop_principal_if_exists(rolename text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    dropped oid;
    problem record;
BEGIN
    problem := pgentra.caller_problem();
    IF problem.message IS NOT NULL THEN
        RAISE EXCEPTION USING MESSAGE = problem.message, ERRCODE = problem.code, HINT = problem.hint;
    END IF;
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
DECLARE
    problem record;
BEGIN
    problem := pgentra.caller_problem();
    IF problem.message IS NOT NULL THEN
        RAISE EXCEPTION USING MESSAGE = problem.message, ERRCODE = problem.code, HINT = problem.hint;
    END IF;
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
REVOKE ALL ON PROCEDURE pg_catalog.pgentra_security_label(text, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    pg_catalog.pgaadauth_create_principal(text, boolean, boolean),
    pg_catalog.pgaadauth_create_principal_with_oid(text, text, text, boolean, boolean),
    pg_catalog.pgaadauth_update_principal_with_oid(text, text, text, boolean, boolean),
    pg_catalog.pgaadauth_drop_principal_if_exists(text),
    pg_catalog.pgaadauth_list_principals(boolean)
TO azure_pg_admin;
GRANT EXECUTE ON PROCEDURE pg_catalog.pgentra_security_label(text, text, text) TO azure_pg_admin;
