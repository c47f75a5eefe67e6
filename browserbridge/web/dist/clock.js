"use strict";(()=>{var s=self;s.onmessage=({data:e})=>{setTimeout(()=>s.postMessage(e.id),e.ms)};})();
