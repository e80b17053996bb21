import { mayAccess } from '../../auth/access.ts'
import { ask } from '../../db/client.ts'
import { dependentsOf, listVersions } from '../../db/packs.ts'
import type { Deps } from '../../deps.ts'
import { Failure } from '../../errors.ts'
import { type PackId, repositoryOf } from '../../packs/pack.ts'
import { parseRange, satisfies } from '../../packs/version.ts'
import { principalOf, requireAccess } from '../access.ts'
import type { Routes } from '../routes.ts'
import { packText } from './answer.ts'
import { jsonText, packIdParam, runnerQuery } from './request.ts'
import { runsOn, selectShown, selectVersion } from './select.ts'

export function addPackReads(routes: Routes, deps: Deps): void {
  routes.get('/packs/:id', async (c) => {
    const packId = packIdParam(c)
    requireAccess(c, repositoryOf(packId), 'pull')
    const row = await selectShown(deps, packId, runnerQuery(c))
    return jsonText(`{"pack":${packText(row)}}`)
  })

  routes.get('/packs/:id/versions', async (c) => {
    const packId = packIdParam(c)
    requireAccess(c, repositoryOf(packId), 'pull')
    const runner = runnerQuery(c)
    const all = await ask(deps.db, (sql) => listVersions(sql, packId))
    if (!all) throw new Failure('PACK_UNKNOWN', { detail: `there is no pack ${packId}` })
    const fit = runner ? all.filter((row) => runsOn(row, runner)) : all
    const versions = fit.map(
      ({ version, state, message, replacedBy, channels, document, digest, size, manifestDigest, publishedAt }) => ({
        ...{ version, state },
        ...(message === null ? {} : { message }),
        ...(replacedBy === null ? {} : { replacedBy }),
        channels,
        ...minRunnerOf(document),
        ...{ digest, size, manifestDigest, publishedAt },
      }),
    )
    return Response.json({ versions })
  })

  routes.get('/packs/:id/:version/manifest', async (c) => {
    const packId = packIdParam(c)
    requireAccess(c, repositoryOf(packId), 'pull')
    const row = await selectVersion(deps, packId, c.req.param('version') ?? '', runnerQuery(c))
    return jsonText(`{"pack":${packText(row)}}`)
  })

  routes.get('/packs/:id/:version/dependents', async (c) => {
    const packId = packIdParam(c)
    requireAccess(c, repositoryOf(packId), 'pull')
    const { version } = await selectVersion(deps, packId, c.req.param('version') ?? '', undefined)
    const all = await ask(deps.db, (sql) => dependentsOf(sql, packId))
    const principal = principalOf(c)
    const dependents = all.filter(({ packId: id, range }) => {
      if (!mayAccess(principal, repositoryOf(id as PackId), 'pull')) return false
      const parsed = parseRange(range)
      return parsed !== undefined && satisfies(version, parsed)
    })
    return Response.json({ dependents })
  })
}

function minRunnerOf(document: string): { minRunnerVersion?: unknown } {
  const { minRunnerVersion } = (JSON.parse(document) as { metadata: Record<string, unknown> }).metadata
  return minRunnerVersion === undefined ? {} : { minRunnerVersion }
}
