// Package host runs Netlify functions as Netlify does. Each function is a program that speaks the Lambda Runtime API,
// with several warm instances that handle one invocation at a time. Requests become Netlify's events, and the results
// become responses, within Netlify's limits.
//
// It differs from Netlify where tests need it: X-KV-Instance names the instance, and instances can be listed and
// restarted. It does not freeze instances between invocations, and starts no further ones under load: requests wait
// their turn. Pages of any origin may read the host's own responses, such as a 413; Netlify's may lack that header.
package host
