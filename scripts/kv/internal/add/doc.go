// Package add adds the functions to an existing Netlify site, updates them, and removes them again.
//
// The added code cannot conflict with the site's own. Each function is a separate Go module in the site's functions
// directory, and the packages that they share are one more module in [Folder]. The site's go.mod therefore stays as it
// is, and no import is rewritten. Of the site's own files, netlify.toml and possibly _redirects get marked lines.
//
// [Add] and [Remove] only plan; [Plan.Apply] writes. A plan with findings cannot be applied. [Folder] records
// everything that was added. An update replaces exactly that, and a removal restores each file of the site byte for
// byte.
package add
