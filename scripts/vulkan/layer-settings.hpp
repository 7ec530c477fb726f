// What llama.cpp's Vulkan backend needs of VK_EXT_layer_settings, which Debian 12's headers (1.3.239) do not have yet.
// It is used with validation layers alone. Source: the Vulkan registry, extension 497.
#pragma once
#include <vulkan/vulkan.hpp>
#if VK_HEADER_VERSION < 272
#include <cstdint>
#include <vector>
namespace vk {
enum class LayerSettingTypeEXT : uint32_t { eBool32 = 0 };
struct LayerSettingEXT {
  const char *pLayerName;
  const char *pSettingName;
  LayerSettingTypeEXT type;
  uint32_t valueCount;
  const void *pValues;
};
struct LayerSettingsCreateInfoEXT {
  explicit LayerSettingsCreateInfoEXT(const std::vector<LayerSettingEXT> &settings)
      : settingCount(static_cast<uint32_t>(settings.size())), pSettings(settings.data()) {}
  VkStructureType sType = static_cast<VkStructureType>(1000496000);
  const void *pNext = nullptr;
  uint32_t settingCount;
  const LayerSettingEXT *pSettings;
};
} // namespace vk
#endif
