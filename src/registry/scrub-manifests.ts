import { ask } from '../db/client.ts'
import { resolveFinding } from '../db/findings.ts'
import { checkManifests, copyPayload, type WrongManifest } from '../db/scrub.ts'
import { report } from './damage.ts'
import type { Pass } from './scrub.ts'

/** As many as one statement hashes: some tens of milliseconds, for most are small. */
const pageManifests = 500

/** Looks at every manifest. The database hashes them where they are. */
export async function checkPayloads(pass: Pass): Promise<void> {
  const { deps, run } = pass
  for (let position: string | undefined = run.position; position !== undefined; ) {
    const from: string = position
    const page = await ask(deps.db, (sql) => checkManifests(sql, from, pageManifests))
    for (const wrong of page.wrong) await handle(pass, wrong)
    run.manifests += page.looked
    run.position = page.next ?? from
    position = page.next
    await pass.save()
  }
}

/** Who pushes such a manifest again heals it; so does another repository that has the right bytes. */
async function handle({ deps, run, repair }: Pass, { actual, ...manifest }: WrongManifest): Promise<void> {
  const finding = { ...manifest, kind: 'wrong-manifest' as const, expected: manifest.digest, actual }
  const repaired = await ask(deps.db, (sql) =>
    sql.begin(async (tx) => {
      const { id } = await report(deps, tx, finding)
      if (!repair || !(await copyPayload(tx, manifest))) return false
      await resolveFinding(tx, id, 'copied from another repository')
      return true
    }),
  )
  run.found++
  if (repaired) run.repaired++
}
