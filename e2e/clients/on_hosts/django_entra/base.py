"""A database backend of Django whose password is a token of azure-identity, for each new connection."""

from django.db.backends.postgresql import base

SCOPE = "https://ossrdbms-aad.database.windows.net/.default"


class DatabaseWrapper(base.DatabaseWrapper):
    def get_connection_params(self):
        parameters = super().get_connection_params()
        credential = parameters.pop("credential")
        return {**parameters, "password": credential.get_token(SCOPE).token}
