import { createHash, randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Connection } from './connection.ts'
import { PacksError, unlessCancelled } from './failure.ts'
import type { ImportSource, ImportStatus } from './imports.ts'

// The id of an import follows from what is sent and where to, so that the same command finds again what a run before it
// has left: a client that was ended, or has given up. What is over is not taken up: then the next id that follows is asked
// for.

/** How many runs of the same command are looked through; whoever has made more begins anew. */
const mostIds = 10

/** The registry notices a lost connection within moments; after this it is taken over all the same. */
export const noticeMs = 20_000
export const lookMs = 300

/** `from`: the byte to go on at. `status`: all of it is at the registry, which is about to publish it. */
export type TakenUp = { id: string; isFresh: boolean; from: number; status?: ImportStatus }

type Find = (id: string) => Promise<ImportStatus>

/** Where an import is to begin, or to go on. `options`: whatever makes it another one. */
export async function takeUp(
  connection: Connection,
  source: ImportSource,
  { options, find, signal }: { options: string; find: Find; signal: AbortSignal | undefined },
): Promise<TakenUp> {
  const seed = [connection.base, userOf(connection), options, source.size, await sampleOf(source)].join('\n')
  for (let n = 0; n < mostIds; n++) {
    const id = idOf(`${seed}\n${n}`)
    try {
      const status = await leftOf(await find(id), find, signal)
      if (status?.state === 'publishing') return { id, isFresh: false, from: 0, status }
      if (status) return { id, isFresh: false, from: resumeAtOf(status, source) }
    } catch (error) {
      if (!(error instanceof PacksError)) throw error
      if (error.code === 'IMPORT_UNKNOWN') return { id, isFresh: false, from: 0 }
      // Whoever may import need not be allowed to look at imports.
      if (error.code !== 'DENIED' && error.code !== 'UNAUTHORIZED') throw error
      break
    }
  }
  return anew()
}

/** An import of its own, from the first byte. */
export function anew(): TakenUp {
  return { id: randomUUID(), isFresh: true, from: 0 }
}

/** What can be gone on with; undefined where it is over, or another client sends it at this moment. */
async function leftOf(
  found: ImportStatus,
  find: Find,
  signal: AbortSignal | undefined,
): Promise<ImportStatus | undefined> {
  let status = found
  // A connection that was lost a moment ago counts as alive; one that is not lost brings more.
  for (let waitedMs = 0; status.alive && isComing(status) && waitedMs < noticeMs; waitedMs += lookMs) {
    await sleep(lookMs, undefined, signal ? { signal } : {}).catch(() => unlessCancelled(signal))
    status = await find(found.id)
    if (status.alive && status.received > found.received) return undefined
  }
  if (status.state === 'publishing') return status
  return isComing(status) ? status : undefined
}

/** The byte of a file to go on at. One at least is left to be sent. */
export function resumeAtOf({ resumeAt = 0 }: ImportStatus, { size }: ImportSource): number {
  return Math.max(0, Math.min(resumeAt, size - 1))
}

export function isComing({ state }: ImportStatus): boolean {
  return state === 'receiving' || state === 'verifying'
}

/** The user that logs in with a password; of a token nobody knows whose it is. */
function userOf({ authorization = '' }: Connection): string {
  const [, basic] = /^Basic (.+)$/i.exec(authorization) ?? []
  return basic === undefined ? '' : (Buffer.from(basic, 'base64').toString().split(':')[0] ?? '')
}

/** So much from either end of a file tells it from others: at its start are the digests of what is in it. */
const sampleBytes = 64 * 1024

/** A digest of both ends. What is wrong for all that is found when it is whole: every digest is checked. */
async function sampleOf({ size, open }: ImportSource): Promise<string> {
  const hash = createHash('sha256')
  for (const from of [0, Math.max(0, size - sampleBytes)]) {
    let left = Math.min(sampleBytes, size)
    for await (const piece of open(from)) {
      hash.update(piece.subarray(0, left))
      left -= piece.length
      if (left <= 0) break
    }
  }
  return hash.digest('hex')
}

/** A UUID (version 8, RFC 9562) that follows from a text. */
function idOf(text: string): string {
  const hex = createHash('sha256').update(text).digest('hex')
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-8${hex.slice(13, 16)}-a${hex.slice(17, 20)}-${hex.slice(20, 32)}`
}
