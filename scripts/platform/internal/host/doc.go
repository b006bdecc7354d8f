// Package host runs Netlify functions the way Netlify runs them: each function is a program that speaks the Lambda
// Runtime API, several warm instances of it, each with one invocation at a time. Requests become the events that
// Netlify sends, and the events' answers become responses, within Netlify's limits.
//
// It differs from Netlify where a test needs it to: instances are told apart in X-KV-Instance, and can be listed and
// restarted. It does not freeze instances between invocations, and starts no more of them under load: requests wait
// their turn. What it answers itself, as a 413, any page may read; Netlify's own answers may lack the header for that.
package host
