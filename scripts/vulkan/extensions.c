/* Two extensions' functions that llama.cpp's Vulkan backend calls by name, which Debian 12's loader (1.3.239) knows and
   does not export: asked of the device. To be preloaded. */
#include <vulkan/vulkan.h>

#define ASKED(name) (PFN_##name) vkGetDeviceProcAddr(device, #name)

VkResult vkGetMemoryHostPointerPropertiesEXT(VkDevice device, VkExternalMemoryHandleTypeFlagBits type, const void *pointer,
                                             VkMemoryHostPointerPropertiesEXT *properties) {
  PFN_vkGetMemoryHostPointerPropertiesEXT asked = ASKED(vkGetMemoryHostPointerPropertiesEXT);
  return asked ? asked(device, type, pointer, properties) : VK_ERROR_EXTENSION_NOT_PRESENT;
}

VkResult vkGetPipelineExecutableStatisticsKHR(VkDevice device, const VkPipelineExecutableInfoKHR *info, uint32_t *count,
                                              VkPipelineExecutableStatisticKHR *statistics) {
  PFN_vkGetPipelineExecutableStatisticsKHR asked = ASKED(vkGetPipelineExecutableStatisticsKHR);
  return asked ? asked(device, info, count, statistics) : VK_ERROR_EXTENSION_NOT_PRESENT;
}
