import { listRepositories } from '../../db/catalog.ts'
import { askRead } from '../../db/client.ts'
import { listReferrers, type Referrer } from '../../db/referrers.ts'
import { listTags } from '../../db/tags.ts'
import type { Deps } from '../../deps.ts'
import { Failure } from '../../errors.ts'
import { maxManifestBytes } from '../../oci/manifest.ts'
import { mediaTypes } from '../../oci/media-types.ts'
import { isReadable, requireAccess, requireListing, requireLogin } from '../access.ts'
import type { Routes } from '../routes.ts'
import { type Fields, nextPage, reply, replyJson } from './reply.ts'
import { digestParam, nameOf, pageOf } from './request.ts'

export function addListingRoutes(routes: Routes, deps: Deps): void {
  // end-1, with and without the slash
  for (const path of ['/v2/', '/v2'])
    routes.get(path, (c) => {
      // As soon as anything takes credentials: clients look here for how to show theirs.
      requireLogin(c)
      return replyJson({})
    })

  // The catalog is not part of the specification; every client that lists repositories asks for it.
  routes.get('/v2/_catalog', async (c) => {
    const filter = requireListing(c)
    const { limit, last } = pageOf(c, 1000)
    const question = { last, limit: limit + 1, filter }
    const found = limit === 0 ? [] : await askRead(deps.db, (sql) => listRepositories(sql, question))
    const { page, more } = cut(found, limit)
    return replyJson({ repositories: page }, more ? nextPage('/v2/_catalog', { last: page.at(-1), n: limit }) : {})
  })

  // end-8
  routes.get('/v2/:name{.+}/tags/list', async (c) => {
    const name = nameOf(c)
    requireAccess(c, name, 'pull')
    const { limit, last } = pageOf(c)
    const found = await askRead(deps.db, (sql) => listTags(sql, name, { last, limit: limit === 0 ? 0 : limit + 1 }))
    if (!found) throw new Failure('NAME_UNKNOWN', { detail: { name } })
    const { page, more } = cut(found, limit)
    const next = more ? nextPage(`/v2/${name}/tags/list`, { last: page.at(-1), n: limit }) : {}
    return replyJson({ name, tags: page }, next)
  })

  // end-12: 200 also for what has never been seen; clients take a 404 for a registry without this call.
  routes.get('/v2/:name{.+}/referrers/:digest', async (c) => {
    const name = nameOf(c)
    const readable = isReadable(c, name)
    const subject = digestParam(c)
    // A plus sign arrives as a space, and no media type has a space in it.
    const artifactType = c.req.query('artifactType')?.replaceAll(' ', '+').replaceAll('\0', '')
    const { limit, last } = pageOf(c, 1000)
    const filter = artifactType ? { artifactType } : {}
    const bounds = { last, limit: Math.max(1, Math.min(limit, 1000)), maxBytes: maxManifestBytes - 1024 }
    const { referrers, more } = readable
      ? await askRead(deps.db, (sql) => listReferrers(sql, name, subject, { ...filter, ...bounds }))
      : { referrers: [], more: false }
    const query = { artifactType: filter.artifactType, n: bounds.limit, last: referrers.at(-1)?.digest }
    const fields: Fields = {
      'content-type': mediaTypes.index,
      ...(artifactType ? { 'oci-filters-applied': 'artifactType' } : {}),
      ...(more ? nextPage(`/v2/${name}/referrers/${subject}`, query) : {}),
    }
    return reply(200, fields, JSON.stringify(indexOf(referrers)))
  })
}

function cut(found: string[], limit: number): { page: string[]; more: boolean } {
  return { page: found.slice(0, limit), more: limit > 0 && found.length > limit }
}

/** Source: distribution-spec, "Listing Referrers". */
function indexOf(referrers: Referrer[]) {
  return {
    schemaVersion: 2,
    mediaType: mediaTypes.index,
    manifests: referrers.map(({ digest, mediaType, size, artifactType, annotations }) => ({
      mediaType,
      digest,
      size,
      ...(artifactType ? { artifactType } : {}),
      ...(annotations ? { annotations } : {}),
    })),
  }
}
