import { ask } from '../db/client.ts'
import { overQuota } from '../db/overrun.ts'
import { overrunsOf } from '../db/quota-try.ts'
import type { Deps } from '../deps.ts'
import { repositoryOf } from '../packs/pack.ts'
import type { Problem } from './import-plan.ts'
import type { Verified } from './import-verify.ts'

/** The quotas that would refuse a bundle, each as a problem. Nothing is written. */
export async function overQuotas(deps: Deps, { plan, survey }: Verified): Promise<Problem[]> {
  const sizes = new Map([...survey.leftOut.map(({ digest, size }) => [digest, size] as const), ...survey.blobs])
  const placed = [...plan.places].map(([packId, digests]) => ({
    repository: repositoryOf(packId),
    manifests: [...digests].flatMap((digest) => {
      const found = plan.manifests.get(digest)
      return found ? [{ digest, ...found }] : []
    }),
  }))
  const manifests = placed.flatMap(({ repository, manifests }) =>
    manifests.map(({ digest, manifest, bytes }) => ({
      ...{ repository, digest, size: bytes.length, isVersion: manifest.subject === undefined },
    })),
  )
  const blobs = placed.flatMap(({ repository, manifests }) =>
    [...new Set(manifests.flatMap(({ manifest }) => manifest.blobs))].map((digest) => ({
      ...{ repository, digest, size: sizes.get(digest) ?? null },
    })),
  )
  const overruns = await ask(deps.db, (sql) => overrunsOf(sql, { blobs, manifests }))
  return overruns.map((overrun) => ({ key: 'QUOTA_EXCEEDED', message: String(overQuota(overrun).detail) }))
}
