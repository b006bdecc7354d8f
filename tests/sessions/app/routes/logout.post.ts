export default defineEventHandler(async (event) => {
  await endSession(event)
  return sendRedirect(event, '/', 303)
})
