// Package add brings the functions into a Netlify site that exists, brings them up to date, and takes them back.
//
// What is brought in cannot meet what the site has of its own: each function is a Go module of its own in the site's functions
// directory, and the packages that all of them share are one more, in the folder [Folder]. So a go.mod of the site stays as it is,
// whatever it says, and no import is rewritten. Two texts of the site are added to, netlify.toml and perhaps _redirects, in marked
// lines.
//
// [Add] and [Remove] only plan: nothing is written before [Plan.Apply]. A plan with findings cannot be applied. Everything that was
// added is noted in [Folder], so that an update replaces exactly that, and the removal leaves each file of the site as it was, to
// the byte.
package add
