import { askRead } from '../db/client.ts'
import { findManifests } from '../db/manifests.ts'
import { storable } from '../db/text.ts'
import type { Deps } from '../deps.ts'
import { Failure, failures } from '../errors.ts'
import type { Digest } from '../oci/digest.ts'
import { parseName, type RepositoryName } from '../oci/name.ts'
import type { PackId } from '../packs/pack.ts'
import type { Selection } from '../packs/selection.ts'
import type { Remote } from '../remote/remote.ts'
import type { OpenReport, Parity } from './parity.ts'

/** A run of a mirror at work. */
export type Mirroring = {
  readonly deps: Deps
  readonly remote: Remote
  readonly prefix: RepositoryName
  readonly selection: Selection
  readonly dryRun: boolean
  readonly concurrency: number
  readonly report: OpenReport
  /** Where blobs are on the side that they go to, as far as this run has seen: they are mounted from there. */
  readonly places: Map<Digest, RepositoryName>
  /** Uploads under way, by repository and digest: a run that is cut takes them up again. */
  readonly sessions: Map<string, string>
  readonly signal: AbortSignal
  /** Says how far it is. */
  note(facts: { pack?: PackId }): void
  /** Writes down where uploads are, at once. */
  keepSessions(): Promise<void>
}

const mostPlaces = 100_000

export function remember({ places }: Mirroring, digest: Digest, repository: RepositoryName): void {
  if (places.size < mostPlaces) places.set(digest, repository)
}

/** The repository of a pack there. Throws REQUEST_INVALID where prefix and id are too long together. */
export function placeOf({ prefix }: Pick<Mirroring, 'prefix'>, packId: PackId): RepositoryName {
  const name = parseName(`${prefix}/${packId}`)
  if (name) return name
  throw new Failure('REQUEST_INVALID', { detail: `${prefix}/${packId} is no name for a repository` })
}

/** Does something to each item, so many at a time. Of several failures the first is thrown, when all others have ended. */
export async function each<T>(
  items: AsyncIterable<T> | Iterable<T>,
  concurrency: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const iterator = (async function* () {
    yield* items
  })()
  let failed = false
  const lane = async () => {
    for (;;) {
      const next = failed ? undefined : await iterator.next()
      if (!next || next.done) return
      try {
        await work(next.value)
      } catch (error) {
        failed = true
        throw error
      }
    }
  }
  const lanes = await Promise.allSettled(Array.from({ length: concurrency }, lane))
  for (const lane of lanes) if (lane.status === 'rejected') throw lane.reason
}

/** Failures that are about the remote as a whole, or the moment: they end the run. */
const ending = new Set(['REMOTE_UNREACHABLE', 'REMOTE_DENIED', 'ADDRESS_REFUSED'])

/** What a failure says of the one thing that was to be moved; throws it where it is about more than that. */
export function refusalOf(error: unknown): string {
  if (!(error instanceof Failure) || ending.has(error.key)) throw error
  if (failures[error.key].status >= 500 && error.key !== 'REMOTE_INVALID') throw error
  const { detail, message } = error
  const said = typeof detail === 'string' ? detail : `${message}: ${JSON.stringify(detail)}`
  return storable(detail === undefined ? message : said)
}

/** A manifest that a repository has here. `known` 'all': only whether it is there, without its bytes. */
export async function manifestHere({ deps }: Mirroring, repository: RepositoryName, digest: Digest, known?: 'all') {
  const question = { repository, digest, tag: undefined, known }
  const [found] = await askRead(deps.db, (sql) => findManifests(sql, [question]))
  return found
}

/** Something that the remote says; undefined, and said in the report, where it cannot be used. */
export async function readThere<T>(run: Mirroring, what: string, read: () => Promise<T>): Promise<T | undefined> {
  try {
    return await read()
  } catch (error) {
    run.report.problem(`${what} cannot be read there: ${refusalOf(error)}`)
    return undefined
  }
}

type Outcome = Pick<Parity, 'state' | 'there' | 'detail'>

/** Moves one thing, or says why not. */
export async function tried(entry: Omit<Parity, 'state'>, work: () => Promise<Outcome>): Promise<Parity> {
  try {
    return { ...entry, ...(await work()) }
  } catch (error) {
    return { ...entry, state: 'refused', detail: refusalOf(error) }
  }
}

/** Moves one thing, or says in the report why not. */
export async function attempt(
  { report }: Mirroring,
  entry: Omit<Parity, 'state'>,
  work: () => Promise<Outcome>,
): Promise<Parity['state']> {
  const parity = await tried(entry, work)
  report.add(parity)
  return parity.state
}
