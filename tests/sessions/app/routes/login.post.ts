export default defineEventHandler(async (event) => {
  const { name, seconds } = await readBody(event)
  await startSession(event, { name, since: new Date().toISOString(), cart: [{ item: 'tea', price: 2.5 }] }, Number(seconds))
  return sendRedirect(event, '/', 303)
})
