import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

const script = fileURLToPath(new URL('report.lua', import.meta.url))

type Load = {
  connections?: number
  seconds: number
  accept?: string
  authorization?: string
  /** Asked for in turn, in place of the url's own. */
  paths?: readonly string[]
}

/** Requests and megabytes (10^6 bytes) per second of one GET, by wrk. Throws when any answer was not 2xx or broke off. */
export async function wrk(url: string, { connections = 32, seconds, accept = '*/*', authorization, paths = [] }: Load) {
  const shown = authorization === undefined ? [] : ['-H', `authorization: ${authorization}`]
  const args = [
    '-t1',
    `-c${connections}`,
    `-d${seconds}s`,
    '-H',
    `accept: ${accept}`,
    ...shown,
    '-s',
    script,
    url,
    '--',
    ...paths,
  ]
  const { stdout } = await promisify(execFile)('wrk', args)
  const report = /^REPORT (.*)$/m.exec(stdout)?.[1]
  if (report === undefined) throw new Error(`wrk printed no report: ${stdout}`)
  const figures = JSON.parse(report) as Record<string, number>
  const { requests = 0, bytes = 0, microseconds = 1, notOk = 0, socketErrors = 0 } = figures
  if (notOk > 0 || socketErrors > 0) {
    throw new Error(`wrk saw ${notOk} answers that were not 2xx and ${socketErrors} socket errors at ${url}`)
  }
  if (requests === 0) throw new Error(`wrk got no answer at ${url}`)
  return { perSecond: (requests * 1e6) / microseconds, megabytesPerSecond: bytes / microseconds }
}
