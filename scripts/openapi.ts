// `npm run openapi`: writes the files of spec/ that are made of the schemas in the code.
import { writeFileSync } from 'node:fs'
import { specFiles } from '../src/http/openapi/files.ts'

for (const [name, text] of Object.entries(specFiles())) {
  writeFileSync(new URL(`../spec/${name}`, import.meta.url), text)
  console.log(`spec/${name}`)
}
