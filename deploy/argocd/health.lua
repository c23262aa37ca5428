-- Health of a PrivateRegistry for Argo CD, which calls an object of a kind that it does not know healthy at once.
-- To install it, put this file into the ConfigMap argocd-cm; see docs/install.md, "Argo CD".
local annotations = obj.metadata.annotations or {}
if annotations["privateregistry.dev/paused"] == "true" then
  return {status = "Suspended", message = "paused by the annotation privateregistry.dev/paused"}
end

local status = obj.status or {}
if status.conditions == nil then
  return {status = "Progressing", message = "the operator has not looked at this registry yet"}
end
if status.observedGeneration ~= obj.metadata.generation then
  return {status = "Progressing", message = "the operator has not looked at this version of the manifest yet"}
end

local conditions = {}
for _, condition in ipairs(status.conditions) do
  conditions[condition.type] = condition
end
local function is_true(name)
  return conditions[name] ~= nil and conditions[name].status == "True"
end

if is_true("Stalled") then
  return {status = "Degraded", message = conditions.Stalled.message}
end
if is_true("Reconciling") then
  return {status = "Progressing", message = conditions.Reconciling.message}
end
local ready = conditions.Ready
if ready == nil or ready.status == "Unknown" then
  return {status = "Progressing", message = ready and ready.message or "the operator has not judged this registry yet"}
end
if ready.status == "False" then
  return {status = "Degraded", message = ready.message}
end
-- Nothing runs, and that is what the manifest or a user asked for.
local stopped = {Suspended = true, StoppedByUser = true, Completed = true}
if stopped[ready.reason] then
  return {status = "Suspended", message = ready.message}
end
return {status = "Healthy", message = ready.message}
