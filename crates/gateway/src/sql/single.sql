-- The flavour of Single Server: members of azure_ad_user sign in with tokens. Runs after gateway.sql.
-- Microsoft: "Use Azure Active Directory for authentication with PostgreSQL", "Connect with Managed Identity".

SELECT pgentra.make_role('azure_ad_user');
SELECT pgentra.make_role('azure_ad_admin');
-- From PostgreSQL 16 on, IN ROLE azure_ad_user takes ADMIN OPTION on that role.
GRANT azure_ad_user TO azure_ad_admin WITH ADMIN OPTION;

-- Makes a role an administrator. Its password is the object id of the principal, as a SCRAM verifier.
CREATE OR REPLACE FUNCTION pgentra.bind_administrator(rolename text, verifier text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pgentra.make_role(rolename);
    EXECUTE format('ALTER ROLE %I LOGIN CREATEROLE CREATEDB PASSWORD %L', rolename, verifier);
    EXECUTE format('GRANT azure_ad_admin, azure_ad_user, azure_pg_admin TO %I', rolename);
END
$$;

-- The members, and what their passwords and names say. Direct members only: membership through another role makes no Entra role.
CREATE OR REPLACE VIEW pgentra.member AS
    SELECT r.rolname, r.rolpassword IS NULL OR r.rolpassword = g.verifier AS by_name,
           r.rolpassword IS NOT NULL AS is_adopted, d.object_id, d.kind
    FROM pg_catalog.pg_authid r
    CROSS JOIN pgentra.gateway g
    LEFT JOIN pgentra.directory d ON d.name = r.rolname
    WHERE EXISTS (
        SELECT FROM pg_catalog.pg_auth_members m
        JOIN pg_catalog.pg_roles marker ON marker.oid = m.roleid
        WHERE m.member = r.oid AND marker.rolname = 'azure_ad_user');
REVOKE ALL ON pgentra.member FROM PUBLIC;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA pgentra FROM PUBLIC;
