import type { ContestantName } from './contestants.ts'
import { drive } from './driver.ts'
import { acceptFor } from './oci.ts'
import { pathsOf, type Samples } from './samples.ts'
import { wrk } from './wrk.ts'

export type Target = { readonly atLeast: number; readonly of: ContestantName }
export type Load = { readonly samples: Samples; readonly seconds: number; readonly largeCount: number }

export type Row = {
  readonly title: string
  readonly unit: string
  /** Writes have no meaning for a server of plain files. */
  readonly writes?: true
  /** Large bodies: as fast as the disk at best, which is measured too. */
  readonly disk?: true
  /** What the registry is to reach: this many times the peer's figure. */
  readonly target?: Target
  measure(origin: string, load: Load): Promise<number>
}

const largeBytes = 64 << 20

async function requests(origin: string, path: string, { seconds }: Load): Promise<number> {
  return (await wrk(origin + path, { seconds, accept: acceptFor(path) })).perSecond
}

async function publish(origin: string, { seconds }: Load, repositories: number): Promise<number> {
  return (await drive({ kind: 'packs', origin, seconds, clients: 8, repositories })).rate
}

async function pushLarge(origin: string, form: 'put' | 'patch', { largeCount }: Load): Promise<number> {
  return (await drive({ kind: 'blobs', origin, form, count: largeCount, bytes: largeBytes, clients: 4 })).rate
}

/** What is measured, in the order of the table; the key is the name for --only. */
export const rows: Readonly<Record<string, Row>> = {
  tag: {
    title: 'manifest GET by tag',
    unit: 'req/s',
    target: { atLeast: 1.2, of: 'olareg' },
    measure: (origin, load) => requests(origin, pathsOf(load.samples).byTag, load),
  },
  // A registry that keeps its tags in one list looks through half of it, or has to have all of it at hand.
  'tag-100': {
    title: '  one tag of 100, in turn',
    unit: 'req/s',
    measure: async (origin, { samples, seconds }) => {
      const paths = pathsOf(samples).eachTag
      return (await wrk(origin, { seconds, accept: acceptFor(paths[0] ?? ''), paths })).perSecond
    },
  },
  digest: {
    title: 'manifest GET by digest',
    unit: 'req/s',
    target: { atLeast: 1.2, of: 'olareg' },
    measure: (origin, load) => requests(origin, pathsOf(load.samples).byDigest, load),
  },
  head: {
    title: 'manifest HEAD by tag',
    unit: 'req/s',
    measure: async (origin, { samples, seconds }) =>
      (await drive({ kind: 'head', origin, path: pathsOf(samples).byTag, seconds, clients: 32 })).rate,
  },
  'blob-4k': {
    title: '4 KiB blob GET',
    unit: 'req/s',
    target: { atLeast: 1, of: 'olareg' },
    measure: (origin, load) => requests(origin, pathsOf(load.samples).small, load),
  },
  'blob-64m': {
    title: '64 MiB blob GET',
    unit: 'MB/s',
    target: { atLeast: 1, of: 'docker-registry' },
    measure: async (origin, { samples, seconds }) =>
      (await wrk(origin + pathsOf(samples).large, { seconds, connections: 4 })).megabytesPerSecond,
  },
  tags: {
    title: 'tags list (100 tags)',
    unit: 'req/s',
    measure: (origin, load) => requests(origin, pathsOf(load.samples).tags, load),
  },
  packs: {
    title: 'small packs published',
    unit: 'packs/s',
    writes: true,
    target: { atLeast: 1, of: 'olareg' },
    measure: (origin, load) => publish(origin, load, 50),
  },
  // A registry that keeps one list per repository writes the whole list again for every tag.
  'packs-one': {
    title: '  all in one repository',
    unit: 'packs/s',
    writes: true,
    measure: (origin, load) => publish(origin, load, 1),
  },
  put: {
    title: '64 MiB pushed by PUT',
    unit: 'MB/s',
    writes: true,
    disk: true,
    target: { atLeast: 1, of: 'olareg' },
    measure: (origin, load) => pushLarge(origin, 'put', load),
  },
  patch: {
    title: '64 MiB pushed by PATCH',
    unit: 'MB/s',
    writes: true,
    disk: true,
    target: { atLeast: 1.5, of: 'olareg' },
    measure: (origin, load) => pushLarge(origin, 'patch', load),
  },
}

export const memoryRow = 'memory'
export const rowNames = [...Object.keys(rows), memoryRow]
