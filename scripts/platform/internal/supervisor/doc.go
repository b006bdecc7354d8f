// Package supervisor is the process behind `make up`: the parent of everything that runs, and the one place that knows what does.
//
// Commands speak to it through three files in the platform's home and one address. spec.json says what is wanted, and a command writes
// it; state.json says what is there, and only the supervisor writes it; env holds the addresses and keys for people and tests. The
// address takes "look at the spec again" and "stop".
package supervisor
