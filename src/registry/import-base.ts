import type { LeftOut } from '../bundles/contents.ts'
import { maxKeptBytes } from '../bundles/survey.ts'
import { ask, askRead } from '../db/client.ts'
import { findHeld, heldManifestSizes, heldManifests } from '../db/held.ts'
import type { Deps } from '../deps.ts'
import { Failure } from '../errors.ts'
import type { Digest } from '../oci/digest.ts'
import { parseName, type RepositoryName } from '../oci/name.ts'

/** As many as are asked for in one statement. */
const atOnce = 5_000
/** As many bytes as manifests of one page may have together; a larger one is a page of its own. */
const pageBytes = 16 * 1024 * 1024

/**
 * What an incremental bundle leaves out has to be here, and where whoever imports may read it: else a digest that somebody
 * has heard of would be enough to get at what it stands for.
 */
export function openBase(
  deps: Deps,
  mayPull: (repository: RepositoryName) => boolean,
  { mostBytes = maxKeptBytes, mostPage = pageBytes }: { mostBytes?: number; mostPage?: number } = {},
) {
  let required: readonly LeftOut[] | undefined
  async function require(leftOut: readonly LeftOut[]): Promise<void> {
    const missing: Digest[] = []
    for (let at = 0; at < leftOut.length; at += atOnce) {
      const some = leftOut.slice(at, at + atOnce)
      const found = await ask(deps.db, (sql) =>
        findHeld(
          sql,
          some.map(({ digest }) => digest),
        ),
      )
      const sizes = new Map(
        found.filter(({ repositories }) => repositories.some(readable)).map((b) => [b.digest, b.size]),
      )
      missing.push(...some.filter(({ digest, size }) => sizes.get(digest) !== size).map(({ digest }) => digest))
    }
    required = leftOut
    if (missing.length === 0) return
    throw new Failure('IMPORT_BASE_MISSING', {
      detail: `the bundle leaves out ${missing.length} blobs that are not here, ${missing[0]} among them: it was made for another site, or for this one when it had more. Ask for a bundle made against this site's inventory, or for a whole one`,
      about: { missing: missing.slice(0, 100), count: missing.length },
    })
  }
  const readable = (name: string) => {
    const repository = parseName(name)
    return repository !== undefined && mayPull(repository)
  }
  return {
    require,
    /**
     * The manifests among what is left out. They stay in memory until the import is planned, so that they may have no more
     * bytes together than those in a file may: sizes are asked for first, and bytes in pages. Throws IMPORT_REFUSED.
     */
    async manifests(leftOut: readonly LeftOut[]): Promise<Map<Digest, Buffer>> {
      if (leftOut.length > 0 && required === undefined) await require(leftOut)
      const sizes = new Map<Digest, number>()
      let total = 0
      for (let at = 0; at < leftOut.length; at += atOnce) {
        const digests = leftOut.slice(at, at + atOnce).map(({ digest }) => digest)
        for (const { digest, size } of await askRead(deps.db, (sql) => heldManifestSizes(sql, digests))) {
          if (!sizes.has(digest)) total += size
          sizes.set(digest, size)
        }
        if (total > mostBytes) throw tooMuch(mostBytes)
      }
      const found = new Map<Digest, Buffer>()
      for (const page of pagesOf(sizes, mostPage)) {
        const some = await askRead(deps.db, (sql) => heldManifests(sql, page))
        for (const { digest, payload } of some) found.set(digest, payload)
      }
      return found
    },
  }
}

function tooMuch(most: number): Failure {
  return new Failure('IMPORT_REFUSED', {
    detail: `the manifests that the bundle leaves out have more than ${most} bytes together, and all are read to check it: export fewer packs into each bundle`,
  })
}

/** Digests in groups of so many bytes, and of as many as one statement asks for. */
function* pagesOf(sizes: ReadonlyMap<Digest, number>, mostBytes: number): Generator<Digest[]> {
  let page: Digest[] = []
  let bytes = 0
  for (const [digest, size] of sizes) {
    if (page.length > 0 && (bytes + size > mostBytes || page.length >= atOnce)) {
      yield page
      page = []
      bytes = 0
    }
    page.push(digest)
    bytes += size
  }
  if (page.length > 0) yield page
}
