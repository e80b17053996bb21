import { documentSchema } from '../../packs/document.ts'
import { lockSchema } from '../../packs/lock.ts'
import { packMediaTypes } from '../../packs/pack.ts'
import { components, openapiDocument } from './document.ts'
import { standalone } from './schema.ts'

/** What `spec/` has of this, by its file name. */
export function specFiles(): Record<string, string> {
  const pack = standalone(documentSchema, components, {
    $id: 'urn:packs-registry:schema:pack',
    title: 'Pack',
    description: 'What an author says of a version of a pack: pack.json, and the config blob of its OCI artifact.',
  })
  const lock = standalone(lockSchema, components, {
    $id: 'urn:packs-registry:schema:lock',
    title: 'Lock',
    description: `What a resolution found, by digest. Media type: ${packMediaTypes.lock}.`,
  })
  return { 'openapi.json': text(openapiDocument()), 'pack.schema.json': text(pack), 'lock.schema.json': text(lock) }
}

function text(value: object): string {
  return `${JSON.stringify(value, null, 2)}\n`
}
