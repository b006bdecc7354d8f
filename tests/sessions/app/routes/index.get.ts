// The page shows the session as JSON, and null without one.
const escape = (text: string) => text.replace(/[&<>]/g, (char) => `&#${char.charCodeAt(0)};`)

const logIn = `<form action="/login" method="post">
  <label>Name <input name="name" required></label>
  <label>Stay logged in for <input name="seconds" type="number" value="3600"> seconds</label>
  <button>Log in</button>
</form>`

const logOut = '<form action="/logout" method="post"><button>Log out</button></form>'

export default defineEventHandler(async (event) => {
  const session = await readSession(event)
  setHeader(event, 'content-type', 'text/html; charset=utf-8')
  return `<!doctype html><title>Sessions</title><pre>${escape(JSON.stringify(session))}</pre>${session ? logOut : logIn}`
})
