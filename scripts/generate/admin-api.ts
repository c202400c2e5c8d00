/** Writes docs/admin-api.json, the OpenAPI description of the admin port. */
import { renderAdminApi } from '../../src/admin/openapi.ts';
import { write } from './write.ts';

write({ 'docs/admin-api.json': renderAdminApi() });
