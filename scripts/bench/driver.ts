import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { atEnd } from './cleanup.ts'
import type { Job, Rate, Result } from './push.ts'

let driver: ChildProcess | undefined

/** Has the load generator's process do one job; it is started once and stays warm. Throws what it failed on. */
export async function drive(job: Job): Promise<Rate> {
  driver ??= startDriver()
  const listening = new AbortController()
  const { signal } = listening
  driver.send(job)
  try {
    const exited = once(driver, 'exit', { signal }).then(() => [{ error: 'the load generator stopped' }])
    exited.catch(() => undefined)
    const [result] = (await Promise.race([once(driver, 'message', { signal }), exited])) as [Result]
    if ('error' in result) throw new Error(result.error)
    return result
  } finally {
    listening.abort()
  }
}

function startDriver(): ChildProcess {
  const child = fork(fileURLToPath(new URL('push.ts', import.meta.url)), { execArgv: ['--import', 'tsx'] })
  child.once('exit', () => {
    driver = undefined
  })
  atEnd(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return
    child.kill('SIGKILL')
    await once(child, 'exit')
  })
  return child
}
