//! Where an Azure access token comes from: sources, selection, chain, retry, cache, refresh
