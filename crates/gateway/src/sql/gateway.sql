-- What both flavours need. Runs as a superuser, in the database postgres, and can run again.

CREATE SCHEMA IF NOT EXISTS pgentra;
REVOKE ALL ON SCHEMA pgentra FROM PUBLIC;

-- Which password mapped roles have towards this server. Only the gateway ever uses it, so a superuser who could read it
-- gains nothing; the verifier is what the roles are given.
CREATE TABLE IF NOT EXISTS pgentra.gateway (
    only_row   boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    tenant_id  uuid NOT NULL,
    password   text NOT NULL,
    verifier   text NOT NULL
);

-- Who exists in the tenant. The names are not unique there either.
CREATE TABLE IF NOT EXISTS pgentra.directory (
    object_id  uuid PRIMARY KEY,
    name       text NOT NULL,
    kind       text NOT NULL CHECK (kind IN ('user', 'group', 'service'))
);

-- Who is a member of which group there.
CREATE TABLE IF NOT EXISTS pgentra.membership (
    group_id   uuid NOT NULL,
    member_id  uuid NOT NULL,
    PRIMARY KEY (group_id, member_id)
);

REVOKE ALL ON ALL TABLES IN SCHEMA pgentra FROM PUBLIC;

-- Makes the gateway's password that of a role.
CREATE OR REPLACE FUNCTION pgentra.adopt(rolename text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- One after the other: two gateways that change a role at the same time get "tuple concurrently updated". No client can
    -- hold the lock of this table.
    LOCK TABLE pgentra.gateway IN SHARE UPDATE EXCLUSIVE MODE;
    EXECUTE format('ALTER ROLE %I PASSWORD %L', rolename, (SELECT verifier FROM pgentra.gateway));
END
$$;

CREATE OR REPLACE FUNCTION pgentra.make_role(rolename text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = rolename) THEN
        EXECUTE format('CREATE ROLE %I NOLOGIN', rolename);
    END IF;
END
$$;

-- Whether a role may do what an administrator may not, by itself or through a role that it is a member of.
CREATE OR REPLACE FUNCTION pgentra.is_powerful(role oid) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (
        SELECT FROM pg_roles r
        WHERE (r.oid = role OR pg_has_role(role, r.oid, 'MEMBER'))
          AND (r.rolsuper OR r.rolbypassrls OR r.rolname IN (
                'pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files',
                'pg_read_all_data', 'pg_write_all_data', 'pg_maintain', 'pg_create_subscription')))
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA pgentra FROM PUBLIC;

SELECT pgentra.make_role('azure_pg_admin');
GRANT pg_monitor, pg_signal_backend TO azure_pg_admin;
