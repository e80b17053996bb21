import type { Context } from 'hono'
import type { Env } from '../routes.ts'

/**
 * While the registry works on what it received (moving a large object, asking an upstream), no bytes pass, and the idle
 * time-out must not take that for a dead client.
 */
export async function patiently<T>(c: Context<Env>, work: () => Promise<T>): Promise<T> {
  const { socket, complete } = c.env.incoming
  const idleMs = socket.timeout ?? 0
  const wait = () => socket.setTimeout(0)
  if (complete) wait()
  else c.env.incoming.once('end', wait)
  try {
    return await work()
  } finally {
    c.env.incoming.off('end', wait)
    socket.setTimeout(idleMs)
  }
}
