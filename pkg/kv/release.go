package kv

// Release names this version of the functions. Each answer carries it, so that `kv doctor` can tell what a site runs.
const Release = "1.0.0"
