package kv

// Release is the version of the functions. Each response carries it, for `kv doctor`.
const Release = "1.0.0"
