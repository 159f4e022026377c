-- The role that the gateway itself signs in as. Runs after gateway.sql; a mapping's script grants the rest.

SELECT pgentra.make_role('pgentra_gateway');
ALTER ROLE pgentra_gateway LOGIN;
-- To end the sessions that are left at a shutdown, and those whose token has expired.
GRANT pg_signal_backend TO pgentra_gateway;
GRANT USAGE ON SCHEMA pgentra TO pgentra_gateway;

-- The roles that may sign in through the gateway: the lines of pg_hba.conf name it.
SELECT pgentra.make_role('pgentra_principal');

-- Makes the gateway's password that of a role that signs in through the gateway, and of no other.
CREATE OR REPLACE FUNCTION pgentra.adopt_principal(rolename text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_auth_members m
        JOIN pg_roles marker ON marker.oid = m.roleid
        JOIN pg_roles r ON r.oid = m.member
        WHERE r.rolname = rolename AND NOT r.rolsuper AND marker.rolname IN ('pgentra_principal', 'azure_ad_user')) THEN
        RAISE EXCEPTION 'role "%" does not sign in through the gateway', rolename
            USING ERRCODE = 'insufficient_privilege', HINT = 'Grant it pgentra_principal.';
    END IF;
    PERFORM pgentra.adopt(rolename);
END
$$;
REVOKE ALL ON FUNCTION pgentra.adopt_principal(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgentra.adopt_principal(text) TO pgentra_gateway;
