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

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA pgentra FROM PUBLIC;
