// What the page's elements are; imported by its document.

import "./job.js";
import "./system.js";
import { watch } from "./engine.js";

watch();
