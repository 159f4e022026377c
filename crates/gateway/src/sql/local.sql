-- As on Azure, so that administrators can make tables and schemas in it.
ALTER DATABASE postgres OWNER TO azure_pg_admin;
