-- The mapping as security labels that can be read, where no provider of labels is loaded. Runs after flexible.sql. Not for
-- a server that is upgraded with pg_upgrade: that stops at labels of a provider that is not loaded.

CREATE OR REPLACE FUNCTION pgentra.show_label() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        DELETE FROM pg_shseclabel l
        WHERE l.objoid = OLD.role AND l.classoid = 'pg_authid'::regclass AND l.provider IN ('pgaadauth', 'pgaadauth-int');
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO pg_shseclabel (objoid, classoid, provider, label) VALUES
            (NEW.role, 'pg_authid'::regclass, 'pgaadauth', coalesce(
                NEW.label,
                format('aadauth,oid=%s,type=%s%s', NEW.object_id, NEW.kind, CASE WHEN NEW.is_admin THEN ',admin' END))),
            (NEW.role, 'pg_authid'::regclass, 'pgaadauth-int',
                format('type=%s,oid=%s,tenant_id=%s', NEW.kind, NEW.object_id, NEW.tenant_id));
    END IF;
    RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION pgentra.show_label() FROM PUBLIC;

DROP TRIGGER IF EXISTS show_label ON pgentra.principal;
CREATE TRIGGER show_label AFTER INSERT OR UPDATE OR DELETE ON pgentra.principal
    FOR EACH ROW EXECUTE FUNCTION pgentra.show_label();
