//! Is this Entra token good, and whose is it: keys, policy, principal
