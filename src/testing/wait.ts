import { setTimeout as sleep } from 'node:timers/promises'

/**
 * Asks again until the answer is truthy, and gives it. Throws, with the last error or answer, after `timeoutMs`: that is
 * only so that nothing hangs, and many times what it takes, for machines are slow.
 */
export async function waitFor<T>(
  what: string,
  condition: () => T | Promise<T>,
  { timeoutMs = 180_000, everyMs = 50 } = {},
): Promise<Exclude<T, false | '' | 0 | null | undefined>> {
  const deadline = Date.now() + timeoutMs
  let last: unknown
  for (;;) {
    try {
      const answer = await condition()
      if (answer) return answer as Exclude<T, false | '' | 0 | null | undefined>
      last = answer
    } catch (error) {
      last = error
    }
    if (Date.now() > deadline) throw new Error(`waited in vain for ${what}`, { cause: last })
    await sleep(everyMs)
  }
}
